import { Writable } from 'node:stream';
import { runCommandLine } from '../../src/cli/run.ts';
import type { Asked, Answered } from './run-cli.ts';

// Runs the command lines that its parent sends it, each as if it had the process to itself, until the parent is done.
// Nothing else keeps it: a command that leaves a socket or a timer behind is found when it does not end.
process.on('message', (asked: Asked) => void answer(asked));

async function answer({ id, argv }: Asked): Promise<void> {
  const out = new Kept();
  const err = new Kept();
  const host = Object.create(process, {
    argv: { value: argv },
    stdout: { value: out },
    stderr: { value: err },
    exitCode: { value: 0, writable: true },
    // Signals are for commands that wait for them; those get a process of their own.
    on: { value: refuse },
    exit: { value: refuse },
  }) as NodeJS.Process;
  await runCommandLine(host);
  const answered: Answered = { id, code: Number(host.exitCode), out: out.text(), err: err.text() };
  process.send?.(answered);
}

class Kept extends Writable {
  readonly #pieces: Buffer[] = [];

  override _write(piece: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.#pieces.push(piece);
    done();
  }

  text(): string {
    return Buffer.concat(this.#pieces).toString('utf8');
  }
}

function refuse(): never {
  throw new Error('a command that serves, or ends its process, is for runCli');
}
