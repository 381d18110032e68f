import { connect, createServer, type Socket } from 'node:net';
import type { Scope } from './scope.ts';

/** How a network behaves: as it should, or badly in one of the ways that networks have. */
export type Weather =
  | 'pass'
  | { readonly delayMs: number }
  /** So many bytes in a second, each way. */
  | { readonly bytesPerSecond: number }
  /** Every connection ends after so many bytes from the server, in the middle of whatever it is: in order, or by reset. */
  | { readonly endsAfterBytes: number; readonly by: 'end' | 'reset' }
  /** Connections are taken, and every byte is swallowed. */
  | 'blackhole'
  /** Those there are lose what the server says and tell nobody; new ones are taken and never answered. */
  | 'half-open'
  | 'refuse';

/** Stands between two processes that speak TCP, and spoils what is between them. */
export type FaultProxy = {
  readonly port: number;
  readonly set: (weather: Weather) => void;
  /** Cuts every connection there is, with a reset. */
  readonly cut: () => void;
  readonly connections: () => number;
  /** Connections there ever were. */
  readonly attempts: () => number;
};

type Pair = { readonly near: Socket; readonly far: Socket; fromServer: number };

export async function startFaultProxy(scope: Scope, target: number): Promise<FaultProxy> {
  let weather: Weather = 'pass';
  let attempts = 0;
  const pairs = new Set<Pair>();
  const carry = (pair: Pair, from: Socket, to: Socket): void => {
    from.on('data', (chunk) => {
      if (weather === 'blackhole' || (weather === 'half-open' && from === pair.far)) return;
      if (weather === 'pass' || typeof weather === 'string') return void to.write(chunk);
      if ('delayMs' in weather) return void setTimeout(() => to.write(chunk), weather.delayMs);
      if ('bytesPerSecond' in weather) return trickle(from, to, chunk, weather.bytesPerSecond);
      if (from === pair.near) return void to.write(chunk);
      const left = weather.endsAfterBytes - pair.fromServer;
      pair.fromServer += chunk.length;
      if (chunk.length <= left) return void to.write(chunk);
      if (weather.by === 'end') to.end(chunk.subarray(0, Math.max(0, left)));
      else to.write(chunk.subarray(0, Math.max(0, left)), () => to.resetAndDestroy());
      return undefined;
    });
    from.on('error', () => to.destroy());
    from.on('close', () => to.destroy());
  };
  const trickle = (from: Socket, to: Socket, chunk: Buffer, bytesPerSecond: number): void => {
    from.pause();
    let sent = 0;
    const timer = setInterval(() => {
      const isOver = typeof weather === 'string' || !('bytesPerSecond' in weather);
      const until = isOver ? chunk.length : sent + Math.max(1, bytesPerSecond / 10);
      if (!to.destroyed) to.write(chunk.subarray(sent, until));
      sent = until;
      if (sent < chunk.length && !to.destroyed) return;
      clearInterval(timer);
      from.resume();
    }, 100);
    timer.unref();
  };
  const server = createServer((near) => {
    attempts += 1;
    if (weather === 'refuse') {
      near.resetAndDestroy();
      return;
    }
    const far = connect({ host: '127.0.0.1', port: target });
    const pair = { near, far, fromServer: 0 };
    pairs.add(pair);
    near.on('close', () => pairs.delete(pair));
    carry(pair, near, far);
    carry(pair, far, near);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = (): void => {
    for (const { near, far } of pairs) {
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
      for (const pair of pairs) pair.fromServer = 0;
    },
    cut,
    connections: () => pairs.size,
    attempts: () => attempts,
  };
}
