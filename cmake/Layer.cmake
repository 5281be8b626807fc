# pararnn_add_layer(NAME LIBRARIES...): a static library of the .cpp files in the current folder over LIBRARIES.
function(pararnn_add_layer name)
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  if(NOT sources)
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ${ARGN})
    return()
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC ${ARGN})
endfunction()

# A target over LibTorch shares the precompiled header of pararnn_ops.
function(pararnn_share_precompiled_header target)
  get_target_property(type ${target} TYPE)
  if(NOT type STREQUAL "INTERFACE_LIBRARY")
    target_precompile_headers(${target} REUSE_FROM pararnn_ops)
  endif()
endfunction()
