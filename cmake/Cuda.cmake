# cuda::headers: those that LibTorch brings. No nvcc, no driver: kernels are compiled at run time, and a machine without a
# GPU runs the same programs. cuda::runtime: and its CUDA runtime linked, for the program; the library finds it when it runs.
set(cuda ${torch}/../nvidia/cu13)
if(NOT EXISTS ${cuda}/lib/libcudart.so.13 OR NOT EXISTS ${cuda}/include/nvrtc.h)
  message(FATAL_ERROR "LibTorch in '${PARARNN_TORCH_DIR}' comes without CUDA 13 (no '${cuda}'): run scripts/setup.sh, or "
                      "give the folder of a Python package torch for CUDA 13 with -DPARARNN_TORCH_DIR=")
endif()
file(REAL_PATH ${cuda} cuda)

add_library(cuda::headers INTERFACE IMPORTED)
target_include_directories(cuda::headers SYSTEM INTERFACE ${cuda}/include)
target_link_libraries(cuda::headers INTERFACE ${CMAKE_DL_LIBS})
add_library(cuda::runtime INTERFACE IMPORTED)
target_link_libraries(cuda::runtime INTERFACE cuda::headers ${cuda}/lib/libcudart.so.13)
