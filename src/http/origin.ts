import type { IncomingMessage } from 'node:http';
import { MeshError, quote } from '../errors.ts';

/** The value of a header that came exactly once; undefined when it is missing or came twice. */
export function soleHeader(request: IncomingMessage, name: string): string | undefined {
  let found: string | undefined;
  for (let i = 0; i + 1 < request.rawHeaders.length; i += 2) {
    if (request.rawHeaders[i]?.toLowerCase() !== name) continue;
    if (found !== undefined) return undefined;
    found = request.rawHeaders[i + 1];
  }
  return found;
}

/** Refuses a Host header that names none of our own names: the mark of DNS rebinding. */
export function checkHost(request: IncomingMessage, allowed: ReadonlySet<string>): MeshError | undefined {
  const host = soleHeader(request, 'host') ?? '';
  const name = hostPattern.exec(host)?.[1]?.toLowerCase();
  if (name !== undefined && allowed.has(name)) return undefined;
  return new MeshError('host_not_allowed', `host ${quote(host)} is none of this server's names`, {
    fix: `use one of ${[...allowed].join(', ')}`,
  });
}

/** Refuses a request that a web page of another origin sent: an Origin header must be `https://` and our own Host. */
export function checkOrigin(request: IncomingMessage, isTls: boolean): MeshError | undefined {
  if (!request.rawHeaders.some((name, i) => i % 2 === 0 && name.toLowerCase() === 'origin')) return undefined;
  const origin = soleHeader(request, 'origin') ?? '';
  const host = soleHeader(request, 'host') ?? '';
  if (isTls && origin.toLowerCase() === `https://${host.toLowerCase()}`) return undefined;
  return new MeshError('origin_not_allowed', `origin ${quote(origin)} may not use this server`, {
    fix: 'call the API from outside a web page',
  });
}

const hostPattern = /^(\[[0-9a-fA-F:.]{2,45}\]|[0-9a-zA-Z.-]{1,253})(?::[0-9]{1,5})?$/;
