# torch::torch: the LibTorch inside the Python package torch. (The package's own find_package(Torch) demands nvcc.)
file(REAL_PATH "${PARARNN_TORCH_DIR}" torch)
if(NOT EXISTS ${torch}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no LibTorch in '${PARARNN_TORCH_DIR}': run scripts/setup.sh, or give the folder of the "
                      "Python package torch with -DPARARNN_TORCH_DIR=")
endif()

# libtorch_cpu exports std::filesystem from an own, older libstdc++, whose remove_all crashes here: the system's goes before
# all libraries, by an option, as CMake orders libraries itself.
set(libstdcxx_first "SHELL:-Wl,--push-state,--no-as-needed -lstdc++ -Wl,--pop-state")

# torch::stable: its stable interface, which needs no more than libtorch_cpu and is the same in every version since.
# Its headers by themselves: beside them LibTorch has a fmt of its own, which is not for it.
set(stable_headers ${CMAKE_BINARY_DIR}/torch_stable)
file(MAKE_DIRECTORY ${stable_headers})
file(CREATE_LINK ${torch}/include/torch ${stable_headers}/torch SYMBOLIC)
# Who has nothing else of LibTorch is compiled with ${torch_stable_version}, which makes what 2.11 lacks an error, and
# every other header of LibTorch too.
set(torch_stable_version TORCH_TARGET_VERSION=0x020b000000000000)
add_library(torch::stable INTERFACE IMPORTED)
target_include_directories(torch::stable SYSTEM INTERFACE ${stable_headers})
target_link_options(torch::stable INTERFACE ${libstdcxx_first})
target_link_libraries(torch::stable INTERFACE ${torch}/lib/libtorch_cpu.so ${CMAKE_DL_LIBS})

add_library(torch::torch INTERFACE IMPORTED)
target_include_directories(torch::torch SYSTEM INTERFACE
  ${torch}/include ${torch}/include/torch/csrc/api/include)
foreach(include cu13/include nccl/include)
  if(EXISTS ${torch}/../nvidia/${include})
    target_include_directories(torch::torch SYSTEM INTERFACE ${torch}/../nvidia/${include})
  endif()
endforeach()
target_compile_definitions(torch::torch INTERFACE USE_DISTRIBUTED USE_C10D_GLOO)
# at::parallel_for is a template over OpenMP: its users compile with -fopenmp, and link the libgomp that LibTorch
# brings, never a second one.
# Loops with comparisons are vectorised only where floating-point exceptions need not be kept apart, those with roots
# where these need not set errno; this stands here, and not with the few files that need it, because a precompiled header
# serves only files of the same flags.
target_compile_options(torch::torch INTERFACE -fopenmp -fno-trapping-math -fno-math-errno)
target_link_options(torch::torch INTERFACE ${libstdcxx_first} LINKER:--no-as-needed)
foreach(library torch torch_cpu c10 torch_cuda c10_cuda)
  if(EXISTS ${torch}/lib/lib${library}.so)
    target_link_libraries(torch::torch INTERFACE ${torch}/lib/lib${library}.so)
  endif()
endforeach()
file(GLOB gomp ${torch}/lib/libgomp*.so*)
target_link_libraries(torch::torch INTERFACE ${gomp})
if(EXISTS ${torch}/lib/libtorch_cuda.so)
  target_compile_definitions(torch::torch INTERFACE USE_C10D_NCCL)
endif()
