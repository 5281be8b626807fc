# pararnn_add_layer(NAME LIBRARIES...): a static library over LIBRARIES, of the .cpp files in the current folder and those in it.
function(pararnn_add_layer name)
  file(GLOB sources CONFIGURE_DEPENDS *.cpp */*.cpp)
  if(NOT sources)
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ${ARGN})
    return()
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC ${ARGN})
  pararnn_compile_together(${name})
endfunction()

# All of a target's files in one compilation: most of the time that a file takes goes to the headers of
# LibTorch, JSON and options that all of them include.
function(pararnn_compile_together target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
endfunction()

# A target over LibTorch shares the precompiled header of pararnn_ops.
function(pararnn_share_precompiled_header target)
  get_target_property(type ${target} TYPE)
  if(NOT type STREQUAL "INTERFACE_LIBRARY")
    target_precompile_headers(${target} REUSE_FROM pararnn_ops)
  endif()
endfunction()

# A target gets FUNCTION, which returns the text of the headers at run time (jit/source.hpp), named relative to a folder.
function(pararnn_embed_headers target function folder)
  set(embedded ${CMAKE_CURRENT_BINARY_DIR}/embedded_headers.cpp)
  add_custom_command(OUTPUT ${embedded}
    COMMAND ${CMAKE_COMMAND} -DFOLDER=${folder} "-DHEADERS=${ARGN}" -DFUNCTION=${function} -DOUTPUT=${embedded}
            -P ${PROJECT_SOURCE_DIR}/cmake/EmbedHeaders.cmake
    DEPENDS ${ARGN} ${PROJECT_SOURCE_DIR}/cmake/EmbedHeaders.cmake
    COMMENT "Embedding headers in ${target}" VERBATIM)
  target_sources(${target} PRIVATE ${embedded})
endfunction()
