// A container's limit may stand in the process's own group or in any group above it, and the group's path as
// /proc/self/cgroup gives it need not exist below the mount (a container often sees its own group as the mount's root).
// So for every mounted hierarchy with CPU time the path is walked up to the mount, and the smallest limit counts.
#include "cpus.h"

#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace tg {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
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
    std::ifstream(folder + "/cpu.max") >> quota >> period;  // "max 100000" leaves zeros
  } else {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;  // -1: none
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  if (quota <= 0 || period <= 0) return 0;
  const double cpus = quota / period;
  return cpus >= 4096 ? 4096 : static_cast<int>(cpus) + (cpus > static_cast<int>(cpus));
}

// The path of this process in the hierarchy, "/" if it is not told.
std::string own_group(const std::string& proc, bool unified) {
  std::ifstream file(proc + "/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // 4:cpu,cpuacct:/path, or 0::/path
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (unified ? controllers.empty() : lists_cpu(controllers)) return line.substr(second + 1);
  }
  return "/";
}

int cgroup_limit(const std::string& proc) {
  int least = 0;
  std::ifstream file(proc + "/self/mountinfo");
  for (std::string line; std::getline(file, line);) {  // id parent device root mount-point options ... - type source options
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
