import type { ServerReadableStream, sendUnaryData } from '@grpc/grpc-js';
import { createAccessLog } from '../../src/access-log/access-log.ts';
import { createAccessLogService } from '../../src/access-log/service.ts';
import { systemClock } from '../../src/clock.ts';
import { startGrpcListener } from '../../src/grpc/listener.ts';
import { SpiffeId, TrustDomain } from '../../src/spiffe/id.ts';
import { createBreathe } from '../../src/up-breath.ts';
import { orders } from '../../test/access-log/entries.ts';

// One side of `access-log.ts`: `ours` or `bare`, on a socket. Answers `cpu` with the CPU time it has used, in seconds.
const [kind = 'ours', path = ''] = process.argv.slice(2);
const own = SpiffeId.parse(orders);
const door = createAccessLogService({
  attested: (peer) => ({ selectors: [], caller: peer }),
  entitledIds: () => [own],
  trustDomain: TrustDomain.parse('mesh.test'),
  accessLog: createAccessLog({
    record: async () => [],
    clock: systemClock,
    allowedCallsWindowSeconds: 10,
    onError: console.error,
  }),
  recordRefusal: console.error,
  clock: systemClock,
  breathe: createBreathe(3),
  report: console.error,
});
const drop = (call: ServerReadableStream<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void => {
  call.on('data', () => undefined);
  call.on('end', () => callback(null, Buffer.alloc(0)));
};
const implementation = kind === 'bare' ? { streamAccessLogs: drop } : door.implementation;
await startGrpcListener({ path, mode: 0o600, services: [{ ...door, implementation }] });
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send?.((user + system) / 1_000_000);
});
process.on('disconnect', () => process.exit(0));
process.send?.('ready');
