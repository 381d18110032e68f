import { type ChildProcess, spawn } from 'node:child_process';

/** A Node process that runs `script` with `args`, and what it prints, line by line. */
export type Child = {
  readonly process: ChildProcess;
  readonly line: () => Promise<string>;
  readonly exited: Promise<void>;
};

/**
 * Starts a child that lives in no file of the repository, so that a user who may not read it can run it too. It is
 * killed after 20 s whatever happens.
 */
export function runChild(
  script: string,
  args: readonly string[],
  options: { uid?: number; gid?: number } = {},
): Child {
  const child = spawn(process.execPath, ['-e', script, ...args], {
    ...options,
    cwd: '/',
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const kill = setTimeout(() => child.kill('SIGKILL'), 20_000);
  const exited = new Promise<void>((resolve) => {
    child.once('close', () => {
      clearTimeout(kill);
      resolve();
    });
  });
  const lines: string[] = [];
  const waiting: ((line: string) => void)[] = [];
  let rest = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    const parts = (rest + text).split('\n');
    rest = parts.pop() ?? '';
    for (const line of parts) (waiting.shift() ?? ((l) => lines.push(l)))(line);
  });
  void exited.then(() => waiting.forEach((take) => take('(exited)')));
  const line = (): Promise<string> =>
    new Promise((resolve) => {
      const ready = lines.shift();
      if (ready === undefined) waiting.push(resolve);
      else resolve(ready);
    });
  return { process: child, line, exited };
}

/** Connects to argv[1], says so, and stays until its standard input ends or is told to exit. */
export const connectScript = `
const socket = require('net').connect(process.argv[1], () => console.log('connected ' + process.pid));
socket.on('error', () => {});
process.stdin.resume().on('end', () => process.exit());
`;
