# cmake --install: the program, the library, the headers of both, and what find_package(pararnn) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/pararnn)

install(TARGETS pararnn RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS pararnn_engine pararnn_base pararnn_kernels pararnn_ops EXPORT pararnn
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/pararnn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# The library's own headers, in a folder that only its target adds to the include path.
set(library_headers ${CMAKE_INSTALL_INCLUDEDIR}/pararnn/library)
foreach(layer base jit cells kernels ops)
  install(DIRECTORY src/${layer} DESTINATION ${library_headers} FILES_MATCHING PATTERN "*.hpp")
endforeach()

install(EXPORT pararnn FILE pararnnTargets.cmake NAMESPACE pararnn:: DESTINATION ${package})
configure_package_config_file(cmake/pararnnConfig.cmake.in ${PROJECT_BINARY_DIR}/pararnnConfig.cmake
  INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/pararnnConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/pararnnConfig.cmake ${PROJECT_BINARY_DIR}/pararnnConfigVersion.cmake
  cmake/Torch.cmake DESTINATION ${package})
