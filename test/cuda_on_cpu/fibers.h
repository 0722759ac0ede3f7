// Stacks that a program switches between, each switch told to AddressSanitizer and ThreadSanitizer.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#if !defined(__x86_64__) && !defined(CUDA_ON_CPU_PORTABLE)
#define CUDA_ON_CPU_PORTABLE
#endif
#if defined(CUDA_ON_CPU_PORTABLE)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace cuda_on_cpu {

constexpr size_t kStack = size_t{128} << 10, kPage = 4096;

// What is done before happens_before(address) is seen after happens_after(address). Nothing else orders fibers.
inline void happens_before([[maybe_unused]] void* address) {
#if defined(__SANITIZE_THREAD__)
  __tsan_release(address);
#endif
}
inline void happens_after([[maybe_unused]] void* address) {
#if defined(__SANITIZE_THREAD__)
  __tsan_acquire(address);
#endif
}

// Nothing may touch poisoned memory.
inline void poison([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(begin, bytes);
#endif
}
inline void unpoison([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(begin, bytes);
#endif
}

// While one lives, ThreadSanitizer looks away: the machinery is not part of the kernel.
struct Quiet {
  Quiet() {
#if defined(__SANITIZE_THREAD__)
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
  }
  ~Quiet() {
#if defined(__SANITIZE_THREAD__)
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
  }
  Quiet(const Quiet&) = delete;
};

// Saves the registers that a call keeps, exchanges stacks, and returns on the other one. swapcontext, which other
// processors use, makes two system calls.
#if !defined(CUDA_ON_CPU_PORTABLE)
__attribute__((naked, noinline)) inline void exchange_stacks(void**, void*) {
  asm volatile(
      "pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15\n"
      "movq %rsp, (%rdi); movq %rsi, %rsp\n"
      "popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp; ret\n");
}
#endif

class Fiber {
 public:
#if defined(__SANITIZE_THREAD__)
  static constexpr bool kReusable = false;  // one thread's variables would be seen where another's were
#else
  static constexpr bool kReusable = true;
#endif

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  ~Fiber() { give_back(); }

  // Prepares it to run `entry`, which never returns. `number` is any: stacks of one alignment would share a few lines
  // of the cache, so each starts at another offset.
  void start(void (*entry)(), size_t number) {
    if (!stack_) take_stack();
    unpoison(stack_ + kPage, kStack - kPage);
    char* const top = stack_ + kStack - number % 31 * 1088;
#if defined(CUDA_ON_CPU_PORTABLE)
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_;
    context_.uc_stack.ss_size = static_cast<size_t>(top - stack_);
    context_.uc_link = nullptr;
    makecontext(&context_, entry, 0);
#else
    // as exchange_stacks leaves a stack: six registers, then where to return to; the callee sees rsp % 16 == 8
    auto** const where = reinterpret_cast<void**>(top) - 2;
    *where = reinterpret_cast<void*>(entry);
    stack_pointer_ = where - 6;
    std::memset(stack_pointer_, 0, 6 * sizeof(void*));
#endif
#if defined(__SANITIZE_THREAD__)
    tsan_ = __tsan_create_fiber(0);
#endif
    fake_stack_ = nullptr;
  }

  // From the fiber that runs to another one. `ends`: this one never runs again.
  __attribute__((no_sanitize("thread"))) static void exchange(Fiber& from, Fiber& to, [[maybe_unused]] bool ends) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake_stack_, to.stack_, to.stack_bytes_);
#endif
#if defined(__SANITIZE_THREAD__)
    if (!from.tsan_) from.tsan_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(to.tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(CUDA_ON_CPU_PORTABLE)
    swapcontext(&from.context_, &to.context_);
#else
    exchange_stacks(&from.stack_pointer_, to.stack_pointer_);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
  }

  // First of all on a new stack. `before` is the fiber that ran until now; if its stack is not one of ours, this is
  // where to learn its bounds, for the way back.
  static void arrived([[maybe_unused]] Fiber& before) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (before.owns_) return;
    before.stack_ = static_cast<char*>(const_cast<void*>(bottom));
    before.stack_bytes_ = bytes;
#endif
  }

  // After its end.
  void retire() {
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(tsan_);
    tsan_ = nullptr;
#endif
    if (!kReusable) give_back();
  }

 private:
  void take_stack() {
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void* const memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (memory == MAP_FAILED) {
      std::fprintf(stderr, "cuda_on_cpu: no memory for stacks\n");
      std::abort();
    }
    mprotect(memory, kPage, PROT_NONE);
    stack_ = static_cast<char*>(memory);
    stack_bytes_ = kStack;
    owns_ = true;
  }
  void give_back() {
    if (owns_) munmap(stack_, kStack);
    if (owns_) stack_ = nullptr;
    owns_ = false;
  }

#if defined(CUDA_ON_CPU_PORTABLE)
  ucontext_t context_{};
#else
  void* stack_pointer_ = nullptr;
#endif
  char* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  bool owns_ = false;
  [[maybe_unused]] void *fake_stack_ = nullptr, *tsan_ = nullptr;
};

}  // namespace cuda_on_cpu
