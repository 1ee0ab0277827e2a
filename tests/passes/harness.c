/* Runs one primitive that TVM compiled, without TVM's runtime: harness FILE:D0xD1... FILE:D0xD1...

   Each argument is a float32 tensor in a file; the last is the result and is written. What runs in parallel on a
   device runs here as one task. */

#include <dlpack/dlpack.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

enum { MOST_TENSORS = 8, MOST_AXES = 8 };

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
  return aligned_alloc(64, (size + 63) / 64 * 64);
}

static int release(int device_type, int device_id, void *data) {
  (void)device_type, (void)device_id;
  free(data);
  return 0;
}

/* The loader of a shared library fills these in; whatever the primitive does not use is left out of its object. */
int (*__TVMBackendParallelLaunch)(ParallelLambda, void *, int) = launch;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fputs(parts[i] ? parts[i] : "", stderr);
  fputc('\n', stderr);
}

static size_t parse_shape(const char *text, DLTensor *tensor) {
  size_t count = 1;
  tensor->shape = malloc(MOST_AXES * sizeof(int64_t));
  for (tensor->ndim = 0; tensor->ndim < MOST_AXES; ++text) {
    char *end;
    int64_t extent = strtoll(text, &end, 10);
    tensor->shape[tensor->ndim++] = extent;
    count *= (size_t)extent;
    text = end;
    if (*text != 'x') break;
  }
  return count;
}

int main(int argc, char **argv) {
  DLTensor tensors[MOST_TENSORS];
  TVMFFIAny args[MOST_TENSORS], result;
  int count = argc - 1;
  size_t size = 0;
  const char *path = NULL;
  if (count < 1 || count > MOST_TENSORS) return 2;
  memset(tensors, 0, sizeof tensors);
  memset(args, 0, sizeof args);
  memset(&result, 0, sizeof result);
  for (int i = 0; i < count; ++i) {
    char *colon = strrchr(argv[i + 1], ':');
    if (!colon) return 2;
    *colon = 0;
    path = argv[i + 1];
    size = parse_shape(colon + 1, &tensors[i]) * sizeof(float);
    tensors[i].data = allocate(0, 0, size, 0, 0);
    tensors[i].device = (DLDevice){kDLCPU, 0};
    tensors[i].dtype = (DLDataType){kDLFloat, 32, 1};
    args[i].type_index = kTVMFFIDLTensorPtr;
    args[i].v_ptr = &tensors[i];
    if (i == count - 1) break;
    FILE *file = fopen(path, "rb");
    if (!file || fread(tensors[i].data, 1, size, file) != size) return 3;
    fclose(file);
  }
  if (__tvm_ffi_primitive(NULL, args, count, &result) != 0) return 4;
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(tensors[count - 1].data, 1, size, file) != size || fclose(file) != 0) return 5;
  return 0;
}
