// How many CPUs this process may use: its affinity mask, and the CPU time its control groups allow (v1 and v2).
#pragma once

#include <string>

namespace tg {

// `proc` is where the system tells about processes; tests have their own.
int usable_cpus(const std::string& proc = "/proc");

}  // namespace tg
