# What a build of llama-cpp-python leaves out, included by its project() (scripts/install.sh says so in CMAKE_ARGS).
# libllama-common is the command line tools' own library. llama-cpp-python's CMakeLists switches it on in the cache, and
# its Python code never loads it; a variable goes before the cache.
set(LLAMA_BUILD_COMMON OFF)

# A wheel with CUDA finds the libraries that PyPI has (nvidia-cublas and such), which pip puts beside it.
function(look_beside_the_package)
  if(TARGET ggml-cuda)
    set(nvidia "$ORIGIN/../../nvidia")
    set_property(TARGET ggml-cuda APPEND PROPERTY INSTALL_RPATH "${nvidia}/cu13/lib" "${nvidia}/cublas/lib" "${nvidia}/cuda_runtime/lib")
  endif()
endfunction()
cmake_language(DEFER CALL look_beside_the_package)
