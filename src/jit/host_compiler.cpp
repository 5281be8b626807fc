#include "jit/host_compiler.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/error.hpp"
#include "base/temporary_folder.hpp"
#include "jit/digest.hpp"
#include "jit/disk_cache.hpp"
#include "jit/system.hpp"

namespace pararnn::jit {
namespace {

namespace fs = std::filesystem;

bool can_run(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error) && ::access(path.c_str(), X_OK) == 0;
}

/// The program of that name in PATH, or at that path; empty if there is none.
fs::path find_program(const std::string& name) {
  if (name.find('/') != name.npos) return can_run(name) ? fs::absolute(name) : fs::path();
  const std::string folders = environment("PATH");
  for (size_t begin = 0; begin <= folders.size();) {
    const size_t end = std::min(folders.find(':', begin), folders.size());
    const fs::path candidate = fs::path(folders.substr(begin, end - begin)) / name;
    if (end > begin && can_run(candidate)) return candidate;
    begin = end + 1;
  }
  return {};
}

/// What tells one installed compiler from another.
std::string identity_of(const fs::path& compiler) {
  const fs::path real = fs::canonical(compiler);
  struct stat status {};
  ::stat(real.c_str(), &status);
  return fmt::format("{} {} {}", real.string(), status.st_size, status.st_mtime);
}

void write_text(const fs::path& path, std::string_view text) {
  fs::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  require(file.good(), "cannot write '{}', where a cell is compiled; TMPDIR names another folder",
          path.string());
}

/// Runs a program in a folder, its output in a file; true if it exits with 0.
bool run_program(const std::vector<std::string>& arguments, const fs::path& folder,
                 const fs::path& output) {
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) {
    pointers.push_back(const_cast<char*>(argument.c_str()));
  }
  pointers.push_back(nullptr);
  // Messages in English, whatever the user's language: they are read here.
  std::vector<std::string> variables = {"LC_ALL=C"};
  for (char** variable = environ; *variable; ++variable) {
    if (std::strncmp(*variable, "LC_ALL=", 7) != 0) variables.emplace_back(*variable);
  }
  std::vector<char*> environment_pointers;
  for (std::string& variable : variables) environment_pointers.push_back(variable.data());
  environment_pointers.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
  posix_spawn_file_actions_addchdir_np(&actions, folder.c_str());
  pid_t process = 0;
  const int reason = ::posix_spawn(&process, pointers[0], &actions, nullptr, pointers.data(),
                                   environment_pointers.data());
  posix_spawn_file_actions_destroy(&actions);
  require(reason == 0, "cannot run '{}': {}", arguments[0], std::strerror(reason));
  int status = 0;
  while (::waitpid(process, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// Traps and errno are given up for vector code; no flag changes a result.
std::vector<std::string> usual_options() {
  return {"-std=c++20",
          "-O3",
          "-fPIC",
          "-shared",
          "-fno-math-errno",
          "-fno-trapping-math",
          "-fvisibility=hidden",
          "-fdiagnostics-color=never"};
}

std::string compile(const HostSource& source, const std::vector<Header>& engine,
                    const fs::path& compiler) {
  const TemporaryFolder folder;
  const fs::path include = folder.path() / "include";
  for (const std::vector<Header>* list : {&engine, &source.headers}) {
    for (const Header& header : *list) write_text(include / header.name, header.text);
  }
  const fs::path program = folder.path() / "program.cpp", log = folder.path() / "log",
                 object = folder.path() / "program.so";
  write_text(program, source.text);
  std::vector<std::string> arguments = {compiler.string()};
  for (const std::string& option : usual_options()) arguments.push_back(option);
  arguments.insert(arguments.end(), source.options.begin(), source.options.end());
  for (const std::string& argument :
       {"-I" + include.string(), program.string(), std::string("-o"), object.string()}) {
    arguments.push_back(argument);
  }
  std::error_code error;
  const bool known = fs::is_directory(source.folder, error);
  const bool compiled = run_program(arguments, known ? source.folder : folder.path(), log);
  if (!compiled) {
    std::string words = read_file(log).value_or("");
    throw CompileError("a program does not compile with " + compiler.string(), std::move(words));
  }
  std::optional<std::string> code = read_file(object);
  require(code && !code->empty(), "'{}' made no code", compiler.string());
  return *std::move(code);
}

/// Loads a shared object from its bytes. It stays loaded.
void* load_object(const std::string& code, const std::string& function) {
  const int file = ::memfd_create("pararnn", MFD_CLOEXEC);
  require(file >= 0, "cannot load compiled code: {}", std::strerror(errno));
  size_t done = 0;
  while (done < code.size()) {
    const ssize_t written = ::write(file, code.data() + done, code.size() - done);
    if (written < 0 && errno != EINTR) break;
    if (written > 0) done += static_cast<size_t>(written);
  }
  const int reason = errno;
  void* object = done == code.size() ? ::dlopen(fmt::format("/proc/self/fd/{}", file).c_str(),
                                                RTLD_NOW | RTLD_LOCAL)
                                     : nullptr;
  const std::string words = done < code.size() ? std::strerror(reason) : object ? "" : ::dlerror();
  // The loader tells libraries apart by their paths: the file stays open, so that its path stays
  // its own.
  if (!object) ::close(file);
  require(object, "cannot load compiled code: {}", words);
  void* entry = ::dlsym(object, function.c_str());
  require(entry, "compiled code lacks the function {}", function);
  return entry;
}

}  // namespace

fs::path find_host_compiler() {
  if (const std::string wanted = environment("CXX"); !wanted.empty()) {
    const fs::path found = find_program(wanted);
    require(!found.empty(), "CXX={}: there is no such program; name a C++ compiler, or unset it",
            wanted);
    return found;
  }
  for (const char* name : {"c++", "g++", "clang++"}) {
    if (const fs::path found = find_program(name); !found.empty()) return found;
  }
  return {};
}

void* load_function(const HostSource& source) {
  const fs::path compiler = find_host_compiler();
  require(!compiler.empty(),
          "there is no C++ compiler here: install one (c++, g++ or clang++), or name it with CXX");
  const std::vector<Header> engine = engine_headers();
  Digest digest;
  digest.add(identity_of(compiler)).add(source.text);
  for (const std::string& option : usual_options()) digest.add(option);
  for (const std::string& option : source.options) digest.add(option);
  for (const std::vector<Header>* list : {&source.headers, &engine}) {
    for (const Header& header : *list) digest.add(header.name).add(header.text);
  }
  const std::string code = DiskCache(cache_folder()).load_or_make(digest.text(), [&] {
    return compile(source, engine, compiler);
  });
  return load_object(code, source.function);
}

}  // namespace pararnn::jit
