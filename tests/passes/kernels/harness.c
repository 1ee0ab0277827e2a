/* Runs one primitive that TVM compiled, without TVM's runtime: harness FILE:D0xD1... FILE:D0xD1...

   Each argument is a tensor in a file, of float32, or with a letter behind its shape of uint8 (u), int8 (s) or int32
   (i); the last is the result and is written. What runs in parallel on a
   device runs here as one task. There is no C library in it: to build one for another machine takes minutes. */

#include <dlpack/dlpack.h>
#include <stddef.h>
#include <stdint.h>
#include <tvm/ffi/c_api.h>

enum { MOST_TENSORS = 8, MOST_AXES = 8, MEMORY = 64 << 20 };
enum { OPENAT = 56, READ = 63, WRITE = 64, EXIT = 93 }; /* Linux on aarch64 */
enum { HERE = -100, CREATE = 01 | 0100 | 01000 };

static long call(long number, long a, long b, long c, long d) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
  return x0;
}

/* Whether a file was read or written whole. */
static int transfer(int number, const char *path, char *data, size_t size) {
  long file = call(OPENAT, HERE, (long)path, number == READ ? 0 : CREATE, 0644);
  while (file >= 0 && size) {
    long done = call(number, file, (long)data, (long)size, 0);
    if (done <= 0) break;
    data += done;
    size -= (size_t)done;
  }
  return file >= 0 && !size;
}

/* What compilers call by themselves. */
void *memset(void *to, int value, size_t size) {
  for (volatile char *at = to; size--;) *at++ = (char)value;
  return to;
}

void *memcpy(void *to, const void *from, size_t size) {
  const char *source = from;
  for (volatile char *at = to; size--;) *at++ = *source++;
  return to;
}

static size_t length(const char *text) {
  const char *end = text;
  while (*end) ++end;
  return (size_t)(end - text);
}

static void tell(const char *text) { call(WRITE, 2, (long)text, (long)length(text), 0); }

typedef struct {
  void *sync_handle;
  int32_t num_task;
} ParallelGroupEnv;

typedef int (*ParallelLambda)(int task_id, ParallelGroupEnv *env, void *data);

int __tvm_ffi_primitive(void *self, const TVMFFIAny *args, int32_t num_args, TVMFFIAny *result);

static int launch(ParallelLambda lambda, void *data, int num_task) {
  ParallelGroupEnv env = {NULL, 1};
  (void)num_task;
  return lambda(0, &env, data);
}

static void *allocate(int device_type, int device_id, uint64_t size, int code, int bits) {
  (void)device_type, (void)device_id, (void)code, (void)bits;
  static _Alignas(64) char memory[MEMORY];
  static size_t used = 0;
  char *found = memory + used;
  if (size > MEMORY - used) return NULL;
  used += (size + 63) / 64 * 64;
  return found;
}

static int release(int device_type, int device_id, void *data) {
  (void)device_type, (void)device_id, (void)data; /* it runs once */
  return 0;
}

/* The loader of a shared library fills these in; whatever the primitive does not use is left out of its object. */
int (*__TVMBackendParallelLaunch)(ParallelLambda, void *, int) = launch;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  tell(kind);
  tell(": ");
  for (int32_t i = 0; i < count; ++i) tell(parts[i] ? parts[i] : "");
  tell("\n");
}

/* The bytes of a tensor whose shape and type a text says. */
static size_t parse_type(const char *text, DLTensor *tensor) {
  size_t count = 1;
  tensor->shape = allocate(0, 0, MOST_AXES * sizeof(int64_t), 0, 0);
  for (tensor->ndim = 0; tensor->ndim < MOST_AXES; ++text) {
    int64_t extent = 0;
    for (; *text >= '0' && *text <= '9'; ++text) extent = 10 * extent + (*text - '0');
    tensor->shape[tensor->ndim++] = extent;
    count *= (size_t)extent;
    if (*text != 'x') break;
  }
  int bits = *text == 'u' || *text == 's' ? 8 : *text == 'h' || *text == 'w' ? 16 : 32;
  int code = *text == 'u' || *text == 'w' ? kDLUInt : *text == 's' || *text == 'i' ? kDLInt : kDLFloat;
  tensor->dtype = (DLDataType){(uint8_t)code, (uint8_t)bits, 1};
  return count * (size_t)bits / 8;
}

static int run(int argc, char **argv) {
  DLTensor tensors[MOST_TENSORS];
  TVMFFIAny args[MOST_TENSORS], result;
  int count = argc - 1;
  size_t size = 0;
  char *path = NULL;
  if (count < 1 || count > MOST_TENSORS) return 2;
  memset(tensors, 0, sizeof tensors);
  memset(args, 0, sizeof args);
  memset(&result, 0, sizeof result);
  for (int i = 0; i < count; ++i) {
    path = argv[i + 1];
    char *colon = path + length(path);
    while (colon > path && *colon != ':') --colon;
    if (colon == path) return 2;
    *colon = 0;
    size = parse_type(colon + 1, &tensors[i]);
    tensors[i].data = allocate(0, 0, size, 0, 0);
    tensors[i].device = (DLDevice){kDLCPU, 0};
    args[i].type_index = kTVMFFIDLTensorPtr;
    args[i].v_ptr = &tensors[i];
    if (i == count - 1) break;
    if (!tensors[i].data || !transfer(READ, path, tensors[i].data, size)) return 3;
  }
  if (__tvm_ffi_primitive(NULL, args, count, &result) != 0) return 4;
  return transfer(WRITE, path, tensors[count - 1].data, size) ? 0 : 5;
}

/* The kernel leaves the count of the arguments, and then the arguments, on the stack. */
__attribute__((used)) static void start(long *stack) { call(EXIT, run((int)stack[0], (char **)(stack + 1)), 0, 0, 0); }

__asm__(".globl _start\n_start:\n  mov x0, sp\n  b start\n");
