import { describe, expect, it } from 'vitest';
import { plainMessage, runtimeError } from '../../src/runtime/ort-error.js';

const GATHER =
  "Non-zero status code returned while running Gather node. Name:'/emb/Gather' Status Message: " +
  'indices element out of data bounds, idx=9 must be within the inclusive range [-3,2]';

describe('plainMessage', () => {
  it.each([
    [
      '/onnxruntime_src/onnxruntime/core/providers/webgpu/webgpu_context.cc:136 onnxruntime::webgpu::WebGpuContext::Initialize(const onnxruntime::webgpu::WebGpuContextConfig&)::<lambda()> adapter_result.status == wgpu::RequestAdapterStatus::Success was false. Failed to get a WebGPU adapter: No supported adapters\n',
      'Failed to get a WebGPU adapter: No supported adapters',
    ],
    [
      '/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:1988 onnxruntime::Provider& onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library x.so',
      'Failed to load library x.so',
    ],
    [
      '/a/element_wise_ops.h:563 void onnxruntime::BroadcastIterator::Init(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. Attempting to broadcast. 4 by 8',
      'Attempting to broadcast. 4 by 8',
    ],
    [
      '/a/tensor.h:206 const T* onnxruntime::Tensor::Data() const [with T = long int] The data (type 1) is wrong.',
      'The data (type 1) is wrong.',
    ],
    [
      'D:\\a\\_work\\1\\s\\onnxruntime\\core\\x.cc:12 onnxruntime::Foo::Bar No device (of any kind)',
      'No device (of any kind)',
    ],
    [
      'OrtSessionOptionsAppendExecutionProvider_Cuda: Failed to load shared library',
      'Failed to load shared library',
    ],
    ['\u001b[1;31mred\u001b[m\n  and  more\n', 'red and more'],
  ])('%s', (text, expected) => expect(plainMessage(text)).toBe(expected));

  it('shortens', () => expect(plainMessage('x'.repeat(9999)).length).toBeLessThan(600));
});

describe('runtimeError', () => {
  it('names the node', () => {
    const error = runtimeError('model.onnx does not run', new Error(GATHER), 'hint');
    expect(error.node).toBe('/emb/Gather');
    expect(error.message).toBe(
      'model.onnx does not run: Gather /emb/Gather: indices element out of data bounds, ' +
        'idx=9 must be within the inclusive range [-3,2]',
    );
  });
});
