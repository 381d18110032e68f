import { connect, createServer, type Socket } from 'node:net';
import type { Scope } from './scope.ts';

/** How a network behaves: as it should, slowly, swallowing every byte, or refusing. */
export type Weather = 'pass' | { readonly delayMs: number } | 'blackhole' | 'refuse';

/** Stands between two processes that speak TCP, and spoils what is between them. */
export type FaultProxy = {
  readonly port: number;
  readonly set: (weather: Weather) => void;
  /** Cuts every connection there is, with a reset. */
  readonly cut: () => void;
  readonly connections: () => number;
};

export async function startFaultProxy(scope: Scope, target: number): Promise<FaultProxy> {
  let weather: Weather = 'pass';
  const pairs = new Set<readonly [Socket, Socket]>();
  const carry = (from: Socket, to: Socket): void => {
    from.on('data', (chunk) => {
      if (weather === 'blackhole') return;
      if (typeof weather === 'object') setTimeout(() => to.write(chunk), weather.delayMs);
      else to.write(chunk);
    });
    from.on('error', () => to.destroy());
    from.on('close', () => to.destroy());
  };
  const server = createServer((near) => {
    if (weather === 'refuse') {
      near.resetAndDestroy();
      return;
    }
    const far = connect({ host: '127.0.0.1', port: target });
    const pair = [near, far] as const;
    pairs.add(pair);
    near.on('close', () => pairs.delete(pair));
    carry(near, far);
    carry(far, near);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = (): void => {
    for (const [near, far] of pairs) {
      near.resetAndDestroy();
      far.destroy();
    }
  };
  scope.defer(() => {
    cut();
    server.close();
  });
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : 0,
    set: (next) => {
      weather = next;
    },
    cut,
    connections: () => pairs.size,
  };
}
