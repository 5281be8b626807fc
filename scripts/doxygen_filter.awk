# A header with its comments as Doxygen reads them: the one at its head describes the file, one behind a member the
# member.
NR == 1 && /^\/\// { print "/// @file"; head = 1 }
/^#pragma once/ { head = 0 }
head { sub(/^\/\//, "///") }
behind && /^ +\/\/ / { sub(/\/\/ /, "///< ") }
/^ *[^ \/].*[;,] +\/\/ / { sub(/\/\/ /, "///< ") }
{ behind = /\/\/\/< /; print }
