// The other side of the comparison: the same listener, with a Check that reads nothing and always says yes. Run with the
// path of its socket; it ends with SIGTERM.
import { keepYoungGenerationSmall } from '../../src/cli/heap-size.ts';

keepYoungGenerationSmall();
const { startGrpcListener } = await import('../../src/grpc/listener.ts');
const { AuthorizationService, CheckResponse } = await import('../../src/wire/authz.ts');

const pass = (bytes: Buffer): Buffer => bytes;
const yes = Buffer.from(
  CheckResponse.encode({
    status: { code: 0, message: 'allowed', details: [] },
    httpResponse: undefined,
    dynamicMetadata: undefined,
  }).finish(),
);
const listener = await startGrpcListener({
  path: process.argv[2] ?? '',
  mode: 0o600,
  services: [
    {
      definition: {
        check: {
          path: AuthorizationService.check.path,
          requestStream: false,
          responseStream: false,
          requestSerialize: pass,
          requestDeserialize: pass,
          responseSerialize: pass,
          responseDeserialize: pass,
        },
      },
      implementation: {
        check: (_call: unknown, callback: (error: null, bytes: Buffer) => void) => callback(null, yes),
      },
      requestBytes: 262_144,
    },
  ],
});
process.on('SIGTERM', () => void listener.close(0).then(() => process.exit(0)));
