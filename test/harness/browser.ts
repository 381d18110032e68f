import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';

/** A page in a browser, driven as a person would. */
export type BrowserPage = {
  /** The value of an expression in the page, waited for until it is true. */
  readonly until: (expression: string) => Promise<void>;
  readonly read: <T>(expression: string) => Promise<T>;
  /** Gives a file input what somebody chose. */
  readonly choose: (selector: string, paths: readonly string[]) => Promise<void>;
  /** What was asked of the network, and what the page complained about, since it was opened. */
  readonly requests: readonly string[];
  readonly complaints: readonly string[];
};

export type Browser = {
  readonly open: (url: string) => Promise<BrowserPage>;
  readonly close: () => Promise<void>;
};

type Message = {
  readonly id?: number;
  readonly sessionId?: string;
  readonly method?: string;
  readonly params?: Record<string, unknown>;
  readonly result?: Record<string, unknown>;
  readonly error?: { readonly message: string };
};

/** Headless Chromium, which tool/chromium brings, over the pipe of its DevTools protocol: no port, no library. */
export async function startBrowser(): Promise<Browser> {
  const program = execFileSync('bash', ['tool/chromium', '--where'], { encoding: 'utf8' }).trim();
  const profile = mkdtempSync(join(tmpdir(), 'countersign-browser-'));
  const child = spawn(
    program,
    [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--remote-debugging-pipe',
      `--user-data-dir=${profile}`,
      'about:blank',
    ],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
  );
  const ended = once(child, 'exit');
  const [input, output] = [child.stdio[3] as Writable, child.stdio[4] as Readable];
  input.on('error', () => undefined);
  const waiting = new Map<number, PromiseWithResolvers<Record<string, unknown>>>();
  const listeners = new Map<string, (method: string, params: Record<string, unknown>) => void>();
  let sent = 0;
  const send = (method: string, params: object = {}, sessionId?: string) => {
    const id = ++sent;
    const answer = Promise.withResolvers<Record<string, unknown>>();
    waiting.set(id, answer);
    input.write(
      `${JSON.stringify({ id, method, params, ...(sessionId === undefined ? {} : { sessionId }) })}\0`,
    );
    return answer.promise;
  };
  let rest = Buffer.alloc(0);
  output.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
      const message = JSON.parse(rest.subarray(0, end).toString('utf8')) as Message;
      rest = rest.subarray(end + 1);
      if (message.id === undefined) {
        listeners.get(message.sessionId ?? '')?.(message.method ?? '', message.params ?? {});
        continue;
      }
      const asked = waiting.get(message.id);
      waiting.delete(message.id);
      if (message.error === undefined) asked?.resolve(message.result ?? {});
      else asked?.reject(new Error(message.error.message));
    }
  });
  child.on('exit', (code, signal) => {
    for (const one of waiting.values()) one.reject(new Error(`the browser ended: ${code ?? signal}`));
  });
  return {
    open: async (url) => {
      const { targetId } = await send('Target.createTarget', { url: 'about:blank' });
      const attached = await send('Target.attachToTarget', { targetId, flatten: true });
      const session = String(attached['sessionId']);
      const [requests, complaints]: [string[], string[]] = [[], []];
      listeners.set(session, (method, params) => {
        if (method === 'Network.requestWillBeSent') requests.push((params['request'] as { url: string }).url);
        if (method === 'Log.entryAdded') complaints.push((params['entry'] as { text: string }).text);
        if (method === 'Runtime.exceptionThrown' || method === 'Page.javascriptDialogOpening')
          complaints.push(`${method} ${JSON.stringify(params)}`);
      });
      for (const domain of ['Page', 'Network', 'Log', 'Runtime', 'DOM'])
        await send(`${domain}.enable`, {}, session);
      await send('Page.navigate', { url }, session);
      const read = async <T>(expression: string): Promise<T> => {
        const { result } = await send('Runtime.evaluate', { expression, returnByValue: true }, session);
        return (result as { value: T }).value;
      };
      return {
        requests,
        complaints,
        read,
        until: async (expression) => {
          const deadline = performance.now() + untilMs;
          // A page that is being loaded may have no document to ask yet.
          while (!(await read<boolean>(`Boolean(${expression})`).catch(() => false))) {
            if (performance.now() > deadline) throw new Error(`never came true in the page: ${expression}`);
            await new Promise((resolve) => setTimeout(resolve, 50));
          }
        },
        choose: async (selector, files) => {
          const { root } = await send('DOM.getDocument', {}, session);
          const { nodeId } = await send(
            'DOM.querySelector',
            { nodeId: (root as { nodeId: number }).nodeId, selector },
            session,
          );
          await send('DOM.setFileInputFiles', { nodeId, files }, session);
        },
      };
    },
    close: async () => {
      send('Browser.close').catch(() => undefined);
      const late = setTimeout(() => child.kill('SIGKILL'), 20_000);
      await ended;
      clearTimeout(late);
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

const untilMs = 60_000;
