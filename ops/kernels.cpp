// Chooses the kernels of the best instruction set that this machine runs.
#include "kernels.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sbnet {

#if defined(__x86_64__)
namespace amx {
extern const Kernels kKernels;
}
namespace avx512bf16 {
extern const Kernels kKernels;
}
namespace avx512 {
extern const Kernels kKernels;
}
namespace avx2 {
extern const Kernels kKernels;
}
#endif
namespace baseline {
extern const Kernels kKernels;
}

namespace {

#if defined(__x86_64__)
// Whether the system lets this process use matrix tiles; it has to be asked.
bool tiles_permitted() {
#if defined(__linux__)
  constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request, tile_data) == 0;
#else
  return false;
#endif
}
#endif

const Kernels& choose() {
#if defined(__x86_64__)
  // what x86-64-v3 and x86-64-v4 stand for, as far as the kernels use it; older compilers do not know those names
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  const bool bf16 = avx512 && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
  const bool amx = bf16 && __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
                   __builtin_cpu_supports("amx-int8") && tiles_permitted();
  const struct {
    bool supported;
    const Kernels* kernels;
  } candidates[] = {{amx, &amx::kKernels},
                    {bf16, &avx512bf16::kKernels},
                    {avx512, &avx512::kKernels},
                    {avx2, &avx2::kKernels},
                    {true, &baseline::kKernels}};
#else
  const struct {
    bool supported;
    const Kernels* kernels;
  } candidates[] = {{true, &baseline::kKernels}};
#endif
  const char* const wanted = std::getenv("SBNET_ISA");
  std::string names;
  for (const auto& [supported, kernels] : candidates) {
    if (!supported) continue;
    if (!wanted || !*wanted || std::string(wanted) == kernels->isa) return *kernels;
    names += std::string(names.empty() ? "" : ", ") + kernels->isa;
  }
  throw std::runtime_error(std::string("SBNET_ISA is '") + wanted + "'; this machine runs " + names);
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace sbnet
