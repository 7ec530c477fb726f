# What a build of llama-cpp-python leaves out, included by its project() (scripts/install.sh says so in CMAKE_ARGS).
# libllama-common is the command line tools' own library. llama-cpp-python's CMakeLists switches it on in the cache, and
# its Python code never loads it; a variable goes before the cache.
set(LLAMA_BUILD_COMMON OFF)
