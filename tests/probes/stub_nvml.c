/* A driver's libnvidia-ml.so.1 for a machine without one. STUB_NVML names, in words, what goes wrong; it is read at each call. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK, UNINITIALIZED, INVALID, NOT_SUPPORTED, NO_PERMISSION, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, NO_FUNCTION = 13,
       MISMATCH = 18, VERSION = 25 };

static int has(const char *word) {
  const char *said = getenv("STUB_NVML");
  return said && strstr(said, word) != 0;
}

int nvmlInitWithFlags(unsigned flags) { return has("mismatch") ? MISMATCH : OK; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }

const char *nvmlErrorString(int code) {
  switch (code) {
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case MISMATCH: return "Driver/library version mismatch";
    case VERSION: return "Argument version mismatch";
    default: return "another error";
  }
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  strncpy(text, "580.1", length);
  return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
  *count = 1;
  return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  *handle = (void *)1;
  return OK;
}

int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
  strncpy(text, "Stub GPU", length);
  return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
  if (strncmp(uuid, has("mig") ? "MIG-" : "GPU-", 4)) return NOT_FOUND;
  *handle = (void *)1;
  return OK;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *later) {
  *now = *later = has("divided");
  return has("older") ? NOT_SUPPORTED : OK;
}

struct memory { unsigned version; uint64_t total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory *memory) {
  if (memory->version != (sizeof *memory | 2u << 24)) return VERSION;
  *memory = (struct memory){memory->version, 1000, 10, 490, 500};
  return OK;
}

struct process { unsigned pid; uint64_t bytes; unsigned gpu_instance, compute_instance; };

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process *found) {
  if (has("permission")) return NO_PERMISSION;
  if (has("nobody")) {
    *count = 0;
    return OK;
  }
  if (!found || *count < 2) {
    *count = 2;
    return INSUFFICIENT_SIZE;
  }
  uint64_t own = has("hidden") ? UINT64_MAX : has("zero") ? 0 : 4000;
  found[0] = (struct process){1, 77, UINT32_MAX, UINT32_MAX};
  found[1] = (struct process){has("namespace") ? 2 : getpid(), own, UINT32_MAX, UINT32_MAX};
  *count = 2;
  return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
  *millijoules = 1234500;
  return has("energy") ? NOT_SUPPORTED : OK;
}

int nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *megahertz) {
  *megahertz = kind == 1 ? 1980 : 0; /* of the multiprocessors */
  return OK;
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
  *celsius = 40;
  return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *mask) {
  *mask = 4;
  return has("older") ? NO_FUNCTION : OK;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *mask) {
  *mask = 8;
  return OK;
}

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) {
  *milliwatts = 700000;
  return OK;
}
