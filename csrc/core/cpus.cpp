// A container's limit may stand in the process's own group or in any group above it, and the group's path as
// /proc/self/cgroup gives it need not exist below the mount (a container often sees its own group as the mount's root).
// So for every mounted hierarchy with CPU time the path is walked up to the mount, and the smallest limit counts.
// Files are read by C's functions: a stream of C++ asks the process's locale, and crashes where a module with a static
// libstdc++ meets another one.
#include "cpus.h"

#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace tg {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t from = 0; from < text.size();) {
    size_t to = text.find(separator, from);
    if (to == std::string::npos) to = text.size();
    parts.push_back(text.substr(from, to - from));
    from = to + 1;
  }
  return parts;
}

// A whole file; empty if there is none.
std::string content(const std::string& path) {
  std::string text;
  if (std::FILE* file = std::fopen(path.c_str(), "re")) {
    char block[4096];
    for (size_t got; (got = std::fread(block, 1, sizeof(block), file)) > 0;) text.append(block, got);
    std::fclose(file);
  }
  return text;
}

bool lists_cpu(const std::string& options) {
  for (const std::string& option : split(options, ',')) {
    if (option == "cpu") return true;
  }
  return false;
}

// CPUs a group's own files allow, rounded up; 0 where they set no limit.
int group_limit(const std::string& folder, bool unified) {
  double quota = 0, period = 0;
  if (unified) {
    const std::string text = content(folder + "/cpu.max");
    char* rest = nullptr;
    quota = std::strtod(text.c_str(), &rest);  // "max 100000" gives 0
    period = std::strtod(rest, nullptr);
  } else {
    quota = std::strtod(content(folder + "/cpu.cfs_quota_us").c_str(), nullptr);  // -1: none
    period = std::strtod(content(folder + "/cpu.cfs_period_us").c_str(), nullptr);
  }
  if (quota <= 0 || period <= 0) return 0;
  const double cpus = quota / period;
  return cpus >= 4096 ? 4096 : static_cast<int>(cpus) + (cpus > static_cast<int>(cpus));
}

// The path of this process in the hierarchy, "/" if it is not told.
std::string own_group(const std::string& proc, bool unified) {
  for (const std::string& line : split(content(proc + "/self/cgroup"), '\n')) {  // 4:cpu,cpuacct:/path, or 0::/path
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (unified ? controllers.empty() : lists_cpu(controllers)) return line.substr(second + 1);
  }
  return "/";
}

int cgroup_limit(const std::string& proc) {
  int least = 0;
  // id parent device root mount-point options ... - type source options
  for (const std::string& line : split(content(proc + "/self/mountinfo"), '\n')) {
    const auto dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    const auto before = split(line.substr(0, dash), ' '), after = split(line.substr(dash + 3), ' ');
    if (before.size() < 5 || after.size() < 3) continue;
    const bool unified = after[0] == "cgroup2";
    if (!unified && !(after[0] == "cgroup" && lists_cpu(after[2]))) continue;
    const std::string &root = before[3], &point = before[4];
    std::string path = own_group(proc, unified);
    if (root != "/" && path.compare(0, root.size(), root) == 0) path.erase(0, root.size());
    while (!path.empty() && path.back() == '/') path.pop_back();
    for (;;) {
      const int limit = group_limit(point + path, unified);
      if (limit && (!least || limit < least)) least = limit;
      if (path.empty()) break;
      const auto slash = path.rfind('/');
      path.erase(slash == std::string::npos ? 0 : slash);
    }
  }
  return least;
}

}  // namespace

int usable_cpus(const std::string& proc) {
  int count = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
  if (const int limit = cgroup_limit(proc); limit && limit < count) count = limit;
#endif
  return count < 1 ? 1 : count;
}

}  // namespace tg
