/* A stand-in for libnvidia-ml.so.1, for tests: it says what a capture says, and fails where the capture says so.
 *
 * The capture is the file that FAKE_NVML names, read again at every call, so that a test can change it under way:
 *
 *     driver 580.95.05                 init_error 18        count_error 999
 *     hang init | memory | processes   crash processes      xid 0 79   (GPU 0 has Xid 79; told once)
 *     gpu                              begins a GPU; the lines below are its own
 *     uuid GPU-...   name ...   pci 00000000:01:00.0   compute 7 5
 *     memory TOTAL RESERVED USED FREE  bytes, as the second version tells them
 *     memory_v2_error 999              the second version fails; the first counts RESERVED as used
 *     utilization 37   temperature 61   power 45123   power_limit 75000   clock 0 1500   throttling 4   old_names 1
 *     ecc 0 3   pcie_generation 3   pcie_width 16   compute_process PID BYTES|-   graphics_process PID BYTES|-
 *     error 15                         this GPU answers nothing else
 *     processes_error 999
 *
 * What a GPU's lines do not name is "not supported". Structures are those of NVIDIA's public nvml.h.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7, TIMEOUT = 10, MAX_GPUS = 16, LINE = 256 };
#define NOT_AVAILABLE 0xFFFFFFFFFFFFFFFFULL

typedef unsigned long long u64;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } MemoryV2;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned pid; u64 memory; unsigned instance, compute_instance; } Process;
typedef struct { void *device; u64 type, data; unsigned instance, compute_instance; } Event;

static unsigned handles[MAX_GPUS];
static unsigned registered[MAX_GPUS];
static unsigned told_xids;

/* The nth line (from 0) with this word, of a GPU's part (gpu >= 0) or of the head (gpu < 0): what follows the word. */
static int find(int gpu, const char *word, int nth, char *rest) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LINE];
    int part = -1, found = 0;
    size_t length = strlen(word);
    if (!file) return 0;
    while (!found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (!strcmp(line, "gpu")) part++;
        else if (part == gpu && !strncmp(line, word, length) && line[length] == ' ' && nth-- == 0) {
            strcpy(rest, line + length + 1);
            found = 1;
        }
    }
    fclose(file);
    return found;
}

static int count_gpus(void) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[LINE];
    int count = 0;
    if (!file) return 0;
    while (fgets(line, sizeof line, file)) count += !strcmp(line, "gpu\n");
    fclose(file);
    return count > MAX_GPUS ? MAX_GPUS : count;
}

static void misbehave(const char *where) {
    char rest[LINE];
    if (find(-1, "hang", 0, rest) && !strcmp(rest, where)) for (;;) pause();
    if (find(-1, "crash", 0, rest) && !strcmp(rest, where)) raise(SIGKILL);
}

static int error_of(int gpu, const char *word) {
    char rest[LINE];
    return find(gpu, word, 0, rest) ? atoi(rest) : SUCCESS;
}

static int index_of(void *device) { return (int)((unsigned *)device - handles); }

/* A number of a GPU. */
static int number(void *device, const char *word, u64 *value) {
    char rest[LINE];
    int gpu = index_of(device), error = error_of(gpu, "error");
    if (error) return error;
    if (!find(gpu, word, 0, rest)) return NOT_SUPPORTED;
    *value = strtoull(rest, NULL, 10);
    return SUCCESS;
}

static int small(void *device, const char *word, unsigned *value) {
    u64 found = 0;
    int error = number(device, word, &found);
    if (!error) *value = (unsigned)found;
    return error;
}

static int text(void *device, const char *word, char *value, unsigned length) {
    char rest[LINE];
    int gpu = index_of(device), error = error_of(gpu, "error");
    if (error) return error;
    if (!find(gpu, word, 0, rest)) return NOT_SUPPORTED;
    snprintf(value, length, "%s", rest);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; misbehave("init"); return error_of(-1, "init_error"); }
int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int error) {
    static char said[64];
    snprintf(said, sizeof said, "stand-in error %d", error);
    return said;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    char rest[LINE];
    if (!find(-1, "driver", 0, rest)) return NOT_SUPPORTED;
    snprintf(version, length, "%s", rest);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)count_gpus();
    return error_of(-1, "count_error");
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    if ((int)index >= count_gpus()) return INVALID;
    *device = &handles[index];
    return error_of((int)index, "error");
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length) { return text(device, "uuid", uuid, length); }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { return text(device, "name", name, length); }

static int memory_of(void *device, MemoryV2 *memory) {
    char rest[LINE];
    int gpu = index_of(device), error = error_of(gpu, "error");
    misbehave("memory");
    if (error) return error;
    if (!find(gpu, "memory", 0, rest)) return NOT_SUPPORTED;
    sscanf(rest, "%llu %llu %llu %llu", &memory->total, &memory->reserved, &memory->used, &memory->free);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    MemoryV2 told = {0};
    int error = memory_of(device, &told);
    *memory = (Memory){told.total, told.free, told.used + told.reserved};
    return error;
}

int nvmlDeviceGetMemoryInfo_v2(void *device, MemoryV2 *memory) {
    int error = error_of(index_of(device), "memory_v2_error");
    if (memory->version != (sizeof(MemoryV2) | (2u << 24))) return 25;
    return error ? error : memory_of(device, memory);
}

int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    char rest[LINE];
    if (!find(index_of(device), "compute", 0, rest)) return NOT_SUPPORTED;
    return sscanf(rest, "%d %d", major, minor) == 2 ? SUCCESS : NOT_SUPPORTED;
}

int nvmlDeviceGetPciInfo_v3(void *device, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    return text(device, "pci", pci->bus_id, sizeof pci->bus_id);
}

int nvmlDeviceGetUtilizationRates(void *device, Utilization *rates) { return small(device, "utilization", &rates->gpu); }
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *value) {
    return sensor ? INVALID : small(device, "temperature", value);
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *value) { return small(device, "power", value); }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *value) { return small(device, "power_limit", value); }
int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *value) { return small(device, "pcie_generation", value); }
int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *value) { return small(device, "pcie_width", value); }

int nvmlDeviceGetClockInfo(void *device, int clock, unsigned *value) {
    char word[16];
    snprintf(word, sizeof word, "clock %d", clock);
    return small(device, word, value);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, u64 *value) { return number(device, "throttling", value); }

int nvmlDeviceGetCurrentClocksEventReasons(void *device, u64 *value) {
    char rest[LINE];
    if (find(index_of(device), "old_names", 0, rest)) return 13; /* function not found: a library before CUDA 12.2 */
    return number(device, "throttling", value);
}

int nvmlDeviceGetTotalEccErrors(void *device, int kind, int counter, u64 *value) {
    char word[16];
    snprintf(word, sizeof word, "ecc %d", kind);
    return counter != 1 ? NOT_SUPPORTED : number(device, word, value);
}

static int processes_of(void *device, const char *word, unsigned *count, Process *list) {
    char rest[LINE], memory[LINE];
    int gpu = index_of(device), error = error_of(gpu, "error");
    unsigned there = 0, room = *count;
    misbehave("processes");
    if (!error) error = error_of(gpu, "processes_error");
    if (error) return error;
    while (find(gpu, word, (int)there, rest)) {
        if (list && there < room && sscanf(rest, "%u %255s", &list[there].pid, memory) == 2)
            list[there].memory = strcmp(memory, "-") ? strtoull(memory, NULL, 10) : NOT_AVAILABLE;
        there++;
    }
    *count = there;
    return there > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, Process *list) {
    return processes_of(device, "compute_process", count, list);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, Process *list) {
    return processes_of(device, "graphics_process", count, list);
}

int nvmlEventSetCreate(void **set) { *set = &told_xids; return SUCCESS; }

int nvmlDeviceRegisterEvents(void *device, u64 types, void *set) {
    (void)set;
    registered[index_of(device)] = types == 8;
    return types == 8 ? SUCCESS : INVALID;
}

int nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
    char rest[LINE];
    int gpu = 0;
    (void)set, (void)milliseconds;
    if (!find(-1, "xid", (int)told_xids, rest)) return TIMEOUT;
    told_xids++;
    memset(event, 0, sizeof *event);
    if (sscanf(rest, "%d %llu", &gpu, &event->data) != 2 || !registered[gpu]) return TIMEOUT;
    event->device = &handles[gpu];
    event->type = 8;
    return SUCCESS;
}
