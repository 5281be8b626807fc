# cmake -DFOLDER=include -DHEADERS=a.hpp;b.hpp -DOUTPUT=x.cpp -P EmbedHeaders.cmake
# Writes a source file that holds the text of the HEADERS, named relative to FOLDER.
set(entries "")
foreach(header ${HEADERS})
  file(RELATIVE_PATH name ${FOLDER} ${header})
  file(READ ${header} text)
  string(APPEND entries "      {\"${name}\", R\"header(${text})header\"},\n")
endforeach()
file(WRITE ${OUTPUT} "#include \"jit/source.hpp\"

namespace pararnn::jit {

std::vector<Header> embedded_headers() {
  return {
${entries}  };
}

}  // namespace pararnn::jit
")
