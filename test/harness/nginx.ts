import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Child, startChild } from './child.ts';
import { eventually, GaveUp } from './eventually.ts';
import type { Scope } from './scope.ts';

export type Nginx = {
  readonly child: Child;
  readonly port: number;
  /** What reloads it, as a hook of `countersign agent files`. */
  readonly reload: readonly string[];
};

export type NginxStart = {
  /** Holds its configuration, pid file and logs. */
  readonly directory: string;
  /** Where svid.pem, key.pem and bundle.pem lie. */
  readonly files: string;
  readonly port: number;
  /** What it answers, in NGINX's own words; `$ssl_client_serial` is the serial of the client's certificate. */
  readonly answer: string;
};

/** The configuration, pid file and hook of an NGINX that is not started yet. */
export function prepareNginx({ directory, files, port, answer }: NginxStart): {
  readonly configuration: string;
  readonly reload: readonly string[];
} {
  mkdirSync(directory, { recursive: true });
  const configuration = join(directory, 'nginx.conf');
  // Envoy speaks HTTP/2 to its peers; since 1.25.1 that is a directive of its own.
  const [, minor = 0] = (/nginx\/1\.([0-9]+)/.exec(describeBuild()) ?? []).map(Number);
  const isNew = minor > 25;
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  writeFileSync(
    configuration,
    `daemon off;
worker_processes 1;
pid ${directory}/nginx.pid;
error_log stderr notice;
${process.geteuid?.() === 0 ? 'user root root;' : ''}
events {}
http {
  access_log ${directory}/access.log;
${temporary
  .filter((name) => supports(`${name}_temp_path`))
  .map((name) => `  ${name}_temp_path ${directory}/${name};`)
  .join('\n')}
  server {
    listen 127.0.0.1:${port} ssl${isNew ? '' : ' http2'};
${isNew ? '    http2 on;\n' : ''}    ssl_protocols TLSv1.3;
    ssl_certificate ${files}/svid.pem;
    ssl_certificate_key ${files}/key.pem;
    ssl_client_certificate ${files}/bundle.pem;
    ssl_verify_client on;
    ssl_verify_depth 3;
    ssl_session_tickets off;
    ssl_session_cache off;
    location / { return 200 "${answer}"; }
  }
}
`,
  );
  return { configuration, reload: [findNginx(), '-c', configuration, '-s', 'reload'] };
}

/** Starts a real NGINX, which ends with the scope. Its files must be there. */
export async function startNginx(scope: Scope, start: NginxStart): Promise<Nginx> {
  const { configuration, reload } = prepareNginx(start);
  const child = startChild(scope, {
    command: findNginx(),
    args: ['-c', configuration, '-e', 'stderr'],
    logFile: join(start.directory, 'nginx.log'),
  });
  const ready = () => {
    if (!child.running()) throw new GaveUp(`it has ended: ${child.output().slice(-2_000)}`);
    return child.output().includes('start worker processes');
  };
  await eventually('NGINX to start', ready);
  return { child, port: start.port, reload };
}

/** The NGINX of this machine, or the one that tool/nginx brings. */
export function findNginx(): string {
  found ??= execFileSync('bash', ['tool/nginx', '--where'], { encoding: 'utf8' }).trim();
  return found;
}

/** A build may lack modules: then it does not know where they would keep their files. */
function supports(directive: string): boolean {
  const module = directive.replace('_temp_path', '');
  return module === 'client_body' || !describeBuild().includes(`--without-http_${module}_module`);
}

function describeBuild(): string {
  built ??= execFileSync('bash', ['-c', '"$0" -V 2>&1', findNginx()], { encoding: 'utf8' });
  return built;
}

let found: string | undefined;
let built: string | undefined;
