import { execFileSync } from 'node:child_process';
import { copyFileSync, linkSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Child, startChild } from './child.ts';
import { eventually, GaveUp } from './eventually.ts';
import { ask } from './http.ts';
import type { Scope } from './scope.ts';

/** A certificate as Envoy's own /certs shows it. */
export type ServedCertificate = {
  readonly serial: string;
  readonly uris: readonly string[];
  readonly validUntil: Date;
};

export type Envoy = {
  readonly name: string;
  readonly child: Child;
  /** GET of its admin socket. */
  readonly admin: (path: string) => Promise<{ readonly status: number; readonly body: string }>;
  /** Resolves once its listeners are open, which is once it has its certificates. */
  readonly live: (withinMs?: number) => Promise<void>;
  readonly isLive: () => Promise<boolean>;
  /** The leaf certificates it holds. */
  readonly certificates: () => Promise<readonly ServedCertificate[]>;
  /** The sum of all counters and gauges whose names match. */
  readonly stat: (name: RegExp) => Promise<number>;
  /** Its JSON access log, written a little later: poll. */
  readonly accessLog: () => readonly Record<string, unknown>[];
};

/** A copy of the Envoy binary at a path of its own, so that `unix:path` tells it from every other Envoy. */
export function makeEnvoyBinary(directory: string): string {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, 'envoy');
  envoyBinary ??= execFileSync('bash', ['tool/envoy', '--where'], { encoding: 'utf8' }).trim();
  try {
    linkSync(envoyBinary, path);
  } catch {
    // Another file system, or a binary of another owner.
    copyFileSync(envoyBinary, path);
  }
  return path;
}

export type EnvoyStart = {
  readonly name: string;
  /** Holds its configuration, socket and logs. */
  readonly directory: string;
  readonly binary: string;
  /** Makes the configuration for the given admin socket and access log. */
  readonly bootstrap: (files: { readonly admin: string; readonly accessLog: string }) => string;
};

/** Starts a real Envoy, which ends with the scope. */
export function startEnvoy(scope: Scope, { name, directory, binary, bootstrap }: EnvoyStart): Envoy {
  const adminSocket = join(directory, 'admin.sock');
  const accessLog = join(directory, 'access.json');
  const config = join(directory, 'bootstrap.yaml');
  writeFileSync(config, bootstrap({ admin: adminSocket, accessLog }));
  writeFileSync(accessLog, '');
  const child = startChild(scope, {
    command: binary,
    args: [
      '-c',
      config,
      '--use-dynamic-base-id',
      '--concurrency',
      '1',
      '-l',
      'warning',
      '--file-flush-interval-msec',
      '200',
      '--drain-time-s',
      '1',
    ],
    logFile: join(directory, 'envoy.log'),
  });
  const admin = (path: string) => ask({ to: adminSocket, path });
  const isLive = async () => {
    if (!child.running()) throw new GaveUp('it has ended');
    return (await admin('/ready')).status === 200;
  };
  return {
    name,
    child,
    admin,
    isLive,
    live: async (withinMs = 20_000) => {
      await eventually(`Envoy ${name} to be live`, isLive, { withinMs }).catch((error: Error) => {
        throw new Error(`${error.message}\n${child.output().slice(-4_000)}`, { cause: error });
      });
    },
    certificates: async () => readCertificates((await admin('/certs')).body),
    stat: async (pattern) => {
      const { stats } = JSON.parse((await admin('/stats?format=json')).body) as { stats: Stat[] };
      return stats
        .filter(
          (stat) => stat.name !== undefined && pattern.test(stat.name) && typeof stat.value === 'number',
        )
        .reduce((sum, stat) => sum + (stat.value as number), 0);
    },
    accessLog: () =>
      readFileSync(accessLog, 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}

type Stat = { readonly name?: string; readonly value?: unknown };
type CertDetails = {
  readonly serial_number: string;
  readonly subject_alt_names: readonly { readonly uri?: string }[];
  readonly expiration_time: string;
};

function readCertificates(body: string): ServedCertificate[] {
  const { certificates } = JSON.parse(body) as { certificates: { cert_chain: CertDetails[] }[] };
  const leaves = certificates.flatMap(({ cert_chain: chain }) => chain.slice(0, 1));
  return leaves.map((leaf) => ({
    serial: leaf.serial_number,
    uris: leaf.subject_alt_names.flatMap(({ uri }) => uri ?? []),
    validUntil: new Date(leaf.expiration_time),
  }));
}

let envoyBinary: string | undefined;
