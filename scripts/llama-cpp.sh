# CMAKE_ARGS for building llama-cpp-python without what nothing here uses: the multimodal library and the tools' library.
# To be sourced. A user's own CMAKE_ARGS come last, so they win.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CMAKE_ARGS="-DLLAVA_BUILD=OFF '-DCMAKE_PROJECT_llama_cpp_INCLUDE=$here/llama-cpp.cmake' ${CMAKE_ARGS:-}"
unset here
