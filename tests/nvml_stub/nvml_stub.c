/* A libnvidia-ml.so.1 that answers from the JSON file which NVML_STUB names, read anew at every nvmlInit.
 *
 * {"driver": "580.95.05", "cuda": 13000,
 *  "errors": {"nvmlInitWithFlags": 9},              the call fails with this code
 *  "hangs": {"nvmlDeviceGetCount_v2": 1},           the call does not return
 *  "fails_after": {"nvmlInitWithFlags": [1, 999]},  it works once in a process, then fails
 *  "devices": [{"uuid": "GPU-…", "name": "…", "capability": [8, 6], "errors": {…},
 *               "memory": {"total": 1, "free": 1, "reserved": 0},   none: not supported, as with unified memory
 *               "processes": [[pid, bytes]], "memory_clock": 9751, "bus_width": 384,
 *               "mig": [{"uuid": "MIG-…", "name": "…", "memory": {…}, "gpu_instance": 1, "compute_instance": 0}]}]}
 *
 * Structures and codes are nvml.h's. A device with "mig" is in MIG mode. An answer that is not in the file is
 * "not supported". The file comes from the tests: it is taken to be JSON, without escapes in its strings.
 */
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7 };
enum { MIG_SLOTS = 16, MEMORY_CLOCK = 2 };

typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } process;

static char *text; /* the file; NULL before nvmlInit */

/* --- JSON, by pointers into the text --- */

static const char *blank(const char *at) {
    while (*at && (isspace((unsigned char)*at) || *at == ',' || *at == ':')) at++;
    return at;
}

static const char *past_string(const char *at) {
    for (at++; *at && *at != '"'; at++) {}
    return *at ? at + 1 : at;
}

static const char *past(const char *at) {
    int depth = 0;
    do {
        at = blank(at);
        if (*at == '"') { at = past_string(at); continue; }
        if (*at == '{' || *at == '[') { depth++; at++; continue; }
        if (*at == '}' || *at == ']') { depth--; at++; continue; }
        while (*at && !strchr(",:{}[] \t\r\n", *at)) at++;
    } while (depth > 0 && *at);
    return at;
}

static const char *member(const char *object, const char *key) {
    if (!object || *object != '{') return NULL;
    const char *at = blank(object + 1);
    while (*at == '"') {
        const char *end = past_string(at), *value = blank(end);
        if ((size_t)(end - at) == strlen(key) + 2 && !strncmp(at + 1, key, strlen(key))) return value;
        at = blank(past(value));
    }
    return NULL;
}

static const char *element(const char *array, unsigned wanted) {
    if (!array || *array != '[') return NULL;
    const char *at = blank(array + 1);
    for (; *at && *at != ']'; at = blank(past(at)), wanted--)
        if (!wanted) return at;
    return NULL;
}

static unsigned length(const char *array) {
    unsigned count = 0;
    while (element(array, count)) count++;
    return count;
}

static int number(const char *value, unsigned long long *out) {
    if (!value || !isdigit((unsigned char)*value)) return NOT_SUPPORTED;
    *out = strtoull(value, NULL, 10);
    return SUCCESS;
}

static int string(const char *value, char *out, unsigned room) {
    if (!value || *value != '"') return NOT_SUPPORTED;
    size_t size = (size_t)(past_string(value) - value) - 2;
    if (size >= room) return INSUFFICIENT_SIZE;
    memcpy(out, value + 1, size);
    out[size] = 0;
    return SUCCESS;
}

/* --- handles: 1 + device * MIG_SLOTS + (0 for the GPU, 1… for its instances) --- */

static const char *devices(void) { return member(text, "devices"); }
static void *handle_of(unsigned device, unsigned slot) { return (void *)(uintptr_t)(1 + device * MIG_SLOTS + slot); }
static unsigned device_of(void *handle) { return (unsigned)((uintptr_t)handle - 1) / MIG_SLOTS; }

static const char *object_of(void *handle) {
    unsigned slot = (unsigned)((uintptr_t)handle - 1) % MIG_SLOTS;
    const char *device = element(devices(), device_of(handle));
    return slot ? element(member(device, "mig"), slot - 1) : device;
}

/* --- errors on demand --- */

static int calls(const char *name) {
    static struct { const char *name; int count; } seen[64];
    for (int i = 0; i < 64; i++) {
        if (!seen[i].name) seen[i].name = name;
        if (!strcmp(seen[i].name, name)) return ++seen[i].count;
    }
    return 0;
}

static int error(const char *name, void *handle) {
    unsigned long long code, times;
    if (!text) return UNINITIALIZED;
    while (member(member(text, "hangs"), name)) sleep(3600);
    const char *late = member(member(text, "fails_after"), name);
    int count = calls(name);
    int due = late && !number(element(late, 0), &times) && count > (int)times;
    if (due && !number(element(late, 1), &code)) return (int)code;
    if (!number(member(member(text, "errors"), name), &code)) return (int)code;
    if (handle && !number(member(member(object_of(handle), "errors"), name), &code)) return (int)code;
    return SUCCESS;
}

#define CALL(handle) do { int code_ = error(__func__, handle); if (code_) return code_; } while (0)

/* --- the library --- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    FILE *file = fopen(getenv("NVML_STUB") ? getenv("NVML_STUB") : "", "rb");
    if (!file) return UNINITIALIZED;
    free(text);
    text = calloc(1, 1 << 20);
    size_t size = fread(text, 1, (1 << 20) - 1, file);
    text[size] = 0;
    fclose(file);
    CALL(NULL);
    return SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlSystemGetDriverVersion(char *out, unsigned room) {
    CALL(NULL);
    return string(member(text, "driver"), out, room);
}

int nvmlSystemGetCudaDriverVersion(int *out) {
    unsigned long long version;
    CALL(NULL);
    int code = number(member(text, "cuda"), &version);
    if (!code) *out = (int)version;
    return code;
}

int nvmlSystemGetCudaDriverVersion_v2(int *out) { CALL(NULL); return nvmlSystemGetCudaDriverVersion(out); }

int nvmlDeviceGetCount_v2(unsigned *out) { CALL(NULL); *out = length(devices()); return SUCCESS; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **out) {
    if (index >= length(devices())) return NOT_FOUND;
    CALL(handle_of(index, 0));
    *out = handle_of(index, 0);
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
    char own[128];
    CALL(NULL);
    for (unsigned device = 0; device < length(devices()); device++) {
        for (unsigned slot = 0; slot < MIG_SLOTS; slot++) {
            const char *object = object_of(handle_of(device, slot));
            if (string(member(object, "uuid"), own, sizeof own) || strcmp(own, uuid)) continue;
            *out = handle_of(device, slot);
            return error(__func__, *out);
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(void *handle, char *out, unsigned room) {
    CALL(handle);
    return string(member(object_of(handle), "uuid"), out, room);
}

int nvmlDeviceGetName(void *handle, char *out, unsigned room) {
    CALL(handle);
    return string(member(object_of(handle), "name"), out, room);
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    unsigned long long high, low;
    CALL(handle);
    const char *capability = member(object_of(handle), "capability");
    if (number(element(capability, 0), &high) || number(element(capability, 1), &low)) return NOT_SUPPORTED;
    *major = (int)high;
    *minor = (int)low;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2 *out) {
    CALL(handle);
    const char *memory = member(object_of(handle), "memory");
    out->reserved = 0;
    number(member(memory, "reserved"), &out->reserved);
    if (number(member(memory, "total"), &out->total)) return NOT_SUPPORTED;
    if (number(member(memory, "free"), &out->free)) return NOT_SUPPORTED;
    out->used = out->total - out->free - out->reserved;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_v1 *out) {
    memory_v2 memory;
    CALL(handle);
    const char *given = member(object_of(handle), "memory");
    if (number(member(given, "total"), &memory.total)) return NOT_SUPPORTED;
    if (number(member(given, "free"), &memory.free)) return NOT_SUPPORTED;
    *out = (memory_v1){memory.total, memory.free, memory.total - memory.free};
    return SUCCESS;
}

static int small(void *handle, const char *key, unsigned *out) {
    unsigned long long value;
    if (number(member(object_of(handle), key), &value)) return NOT_SUPPORTED;
    *out = (unsigned)value;
    return SUCCESS;
}

int nvmlDeviceGetMaxClockInfo(void *handle, unsigned kind, unsigned *out) {
    CALL(handle);
    return kind == MEMORY_CLOCK ? small(handle, "memory_clock", out) : NOT_SUPPORTED;
}

int nvmlDeviceGetMemoryBusWidth(void *handle, unsigned *out) {
    CALL(handle);
    return small(handle, "bus_width", out);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process *out) {
    CALL(handle);
    const char *list = member(object_of(handle), "processes");
    if (!list) return NOT_SUPPORTED;
    unsigned there = length(list), room = *count;
    *count = there;
    if (there > room) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < there; i++) {
        unsigned long long pid = 0;
        number(element(element(list, i), 0), &pid);
        out[i] = (process){(unsigned)pid, 0, 0, 0};
        number(element(element(list, i), 1), &out[i].bytes);
    }
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    CALL(handle);
    *current = *pending = member(object_of(handle), "mig") != NULL;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    CALL(handle);
    *count = member(object_of(handle), "mig") ? MIG_SLOTS - 1 : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **out) {
    CALL(handle);
    if (index >= length(member(object_of(handle), "mig"))) return NOT_FOUND;
    *out = handle_of(device_of(handle), index + 1);
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *out) {
    unsigned long long id = 0;
    CALL(handle);
    int code = number(member(object_of(handle), "gpu_instance"), &id);
    *out = (unsigned)id;
    return code;
}

int nvmlDeviceGetComputeInstanceId(void *handle, unsigned *out) {
    unsigned long long id = 0;
    CALL(handle);
    int code = number(member(object_of(handle), "compute_instance"), &id);
    *out = (unsigned)id;
    return code;
}
