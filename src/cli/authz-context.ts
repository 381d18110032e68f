import { readFileSync } from 'node:fs';
import type { z } from 'zod';
import { MeshError, quote } from '../errors.ts';
import type { callContextBody } from '../http/call-context.ts';

/** What `authz check` is told of a call beside who calls whom and how. */
export type ContextOptions = {
  /** `name: value`, each. */
  readonly header?: readonly string[];
  readonly sourceIp?: string;
  readonly remoteIp?: string;
  readonly sni?: string;
  /** A file of JSON, or `none`. */
  readonly claims?: string;
};

/** As the body of `POST /v1/authz/check` has it. @throws MeshError `usage`, `input_unreadable` */
export function readContext(options: ContextOptions): z.infer<typeof callContextBody> {
  const { header, sourceIp, remoteIp, sni, claims } = options;
  return {
    ...(header === undefined ? {} : { headers: header.map(splitHeader) }),
    ...(sourceIp === undefined ? {} : { sourceIp }),
    ...(remoteIp === undefined ? {} : { remoteIp }),
    ...(sni === undefined ? {} : { sni }),
    ...(claims === undefined ? {} : { claims: claims === 'none' ? null : readClaims(claims) }),
  };
}

function splitHeader(line: string): [string, string] {
  const [, name, value] = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*)$/.exec(line) ?? [];
  if (name !== undefined && value !== undefined) return [name, value];
  throw new MeshError('usage', `${quote(line)} is no header`, { fix: "write it as 'x-team: red'" });
}

function readClaims(file: string): Record<string, unknown> {
  const fix = 'give a file with one JSON object, or none';
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(file, 'utf8'));
  } catch (cause) {
    throw new MeshError('input_unreadable', `cannot read JSON from ${quote(file)}`, { cause, fix });
  }
  if (typeof content === 'object' && content !== null && !Array.isArray(content)) {
    return { ...content };
  }
  throw new MeshError('input_unreadable', `${quote(file)} holds no JSON object`, { fix });
}
