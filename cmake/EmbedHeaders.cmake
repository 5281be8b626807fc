# cmake -DFOLDER=include -DHEADERS=a.hpp;b.hpp -DFUNCTION=pararnn::jit::embedded_headers -DOUTPUT=x.cpp -P EmbedHeaders.cmake
# Writes a source file whose FUNCTION returns the text of the HEADERS, named relative to FOLDER.
set(entries "")
foreach(header ${HEADERS})
  file(RELATIVE_PATH name ${FOLDER} ${header})
  file(READ ${header} text)
  string(APPEND entries "      {\"${name}\", R\"header(${text})header\"},\n")
endforeach()
string(REGEX MATCH "^(.*)::([^:]*)$" _ ${FUNCTION})
file(WRITE ${OUTPUT} "#include \"jit/source.hpp\"

namespace ${CMAKE_MATCH_1} {

std::vector<jit::Header> ${CMAKE_MATCH_2}() {
  return {
${entries}  };
}

}  // namespace ${CMAKE_MATCH_1}
")
