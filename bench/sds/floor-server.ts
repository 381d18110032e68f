// What opening a stream costs before anybody decides anything: the listener of the agent, with the same RPC on it, whose
// first request is answered with bytes that lie ready. A process of its own: `node floor-server.ts <socket> <response>`.
import { readFileSync } from 'node:fs';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { keepYoungGenerationSmall } from '../../src/cli/heap-size.ts';
import { startGrpcListener } from '../../src/grpc/listener.ts';
import { SecretDiscoveryServiceService } from '../../src/wire/sds.ts';

keepYoungGenerationSmall();
const [path = '', file = ''] = process.argv.slice(2);
const response = readFileSync(file);
const { streamSecrets } = SecretDiscoveryServiceService;
const listener = await startGrpcListener({
  path,
  mode: 0o600,
  services: [
    {
      definition: { streamSecrets: { ...streamSecrets, responseSerialize: (bytes: Buffer) => bytes } },
      implementation: {
        streamSecrets: (call: ServerDuplexStream<unknown, Buffer>) => {
          call.once('data', () => call.write(response));
          // What comes after it is read as well, as the agent does.
          call.on('data', () => undefined);
          call.on('error', () => undefined);
        },
      },
    },
  ],
});
process.once('SIGTERM', () => void listener.close(0));
console.log('serving');
