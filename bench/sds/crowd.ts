import { readFileSync } from 'node:fs';
import { type Child, startChild } from '../../test/harness/child.ts';
import { eventually, GaveUp } from '../../test/harness/eventually.ts';
import type { Scope } from '../../test/harness/scope.ts';

/** The Go client as a process of its own: many streams over many connections. */
export type Crowd = {
  readonly child: Child;
  /** What its last line of progress says. */
  readonly progress: () => {
    readonly live: number;
    readonly first: number;
    readonly pushes: number;
    readonly errors: number;
  };
  /** Resolves once it has told its result. */
  readonly result: () => Promise<CrowdResult>;
};

export type CrowdResult = {
  readonly first: number;
  readonly liveAtEnd: number;
  readonly pushes: number;
  readonly bad: number;
  readonly errors: number;
  /** To the first response of a stream, in ms. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** By version: how many responses, and how far apart in ms. */
  readonly versions: readonly { readonly responses: number; readonly spreadMs: number }[];
  readonly failures: readonly string[];
};

let runs = 0;

/** @param binary of the client, at the path that its entry names */
export function startCrowd(scope: Scope, binary: string, directory: string, args: readonly string[]): Crowd {
  runs += 1;
  const logFile = `${directory}/crowd-${runs}.log`;
  const child = startChild(scope, { command: binary, args, logFile });
  const output = () => readFileSync(logFile, 'utf8');
  return {
    child,
    progress: () => {
      const lines = [...output().matchAll(/live=(\d+) first=(\d+) pushes=(\d+) .*errors=(\d+)/g)];
      const [, live = '0', first = '0', pushes = '0', errors = '0'] = lines.at(-1) ?? [];
      if (!child.running()) throw new GaveUp(`the client has ended: ${output().slice(-1_000)}`);
      return { live: Number(live), first: Number(first), pushes: Number(pushes), errors: Number(errors) };
    },
    result: async () => {
      await child.exited;
      return readResult(output());
    },
  };
}

/** Waits until so many streams are open. */
export function allLive(crowd: Crowd, streams: number): Promise<unknown> {
  const areOpen = () => {
    const { live, errors } = crowd.progress();
    if (errors > 0) throw new GaveUp(`${errors} streams failed, ${live} are open`);
    if (live < streams) throw new Error(`${live} are open`);
    return true;
  };
  return eventually(`${streams} streams`, areOpen, { withinMs: 180_000, everyMs: 200 });
}

function readResult(text: string): CrowdResult {
  const number = (name: string) => Number(new RegExp(`\\b${name}=(\\d+)`).exec(lineOf(text, 'RESULT'))?.[1]);
  const first = lineOf(text, 'FIRST-RESPONSE');
  const ms = (name: string) => milliseconds(new RegExp(`\\b${name}=(\\S+)`).exec(first)?.[1] ?? '');
  return {
    first: number('first_responses'),
    liveAtEnd: number('live_at_end'),
    pushes: number('pushes'),
    bad: number('bad'),
    errors: number('errors'),
    p50Ms: ms('p50'),
    p99Ms: ms('p99'),
    maxMs: ms('max'),
    versions: [...text.matchAll(/^VERSION .*responses=(\d+) .*spread=(\S+)$/gm)].map(
      ([, responses, spread]) => ({
        responses: Number(responses),
        spreadMs: milliseconds(spread ?? ''),
      }),
    ),
    failures: [...text.matchAll(/^ERROR (.*)$/gm)].map(([, failure = '']) => failure),
  };
}

function lineOf(text: string, name: string): string {
  return new RegExp(`^${name} .*$`, 'm').exec(text)?.[0] ?? '';
}

/** A duration as Go writes it: `1m2.5s`, `80.1ms`, `90us`. */
export function milliseconds(text: string): number {
  let sum = 0;
  for (const [, value, unit] of text.matchAll(/([\d.]+)(h|ms|m|s|µs|us|ns)/g)) {
    sum +=
      Number(value) *
      ({ h: 3_600_000, m: 60_000, s: 1_000, ms: 1, µs: 1e-3, us: 1e-3, ns: 1e-6 }[unit ?? ''] ?? NaN);
  }
  return text === '' ? Number.NaN : sum;
}
