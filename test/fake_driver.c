// A CUDA driver without a device, as far as the CUDA runtime gets with one: it begins with the error FAKE_DRIVER.
#include <stdlib.h>
#include <string.h>

static int version(int* number) {
  *number = 99000;  // newer than any runtime
  return 0;
}
static int begin(unsigned flags) {
  (void)flags;
  return atoi(getenv("FAKE_DRIVER"));
}
static int not_asked(void) { return 999; }

int cuGetExportTable(const void** table, const void* name) {
  (void)table, (void)name;
  return 500;
}

int cuGetProcAddress_v2(const char* name, void** function, int at_least, unsigned long long flags, int* found) {
  (void)at_least, (void)flags;
  *function = !strcmp(name, "cuInit")                ? (void*)begin
              : !strcmp(name, "cuDriverGetVersion")  ? (void*)version
              : !strcmp(name, "cuGetProcAddress")    ? (void*)cuGetProcAddress_v2
              : !strcmp(name, "cuGetExportTable")    ? (void*)cuGetExportTable
                                                     : (void*)not_asked;
  if (found) *found = 0;
  return 0;
}
