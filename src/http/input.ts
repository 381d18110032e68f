import type { z } from 'zod';
import { type ErrorCode, MeshError, quote } from '../errors.ts';

// Zod, not JSON Schema: the parsed value has the schema's type, so a route cannot read a field it has not checked,
// and nothing is coerced, removed or defaulted behind the author's back.

/**
 * Parses what a request carried against a strict schema: unknown fields are refused.
 * @throws MeshError `code`, naming the first wrong field
 */
export function parseInput<T extends z.ZodType>(
  schema: T,
  input: unknown,
  code: Extract<ErrorCode, 'body_invalid' | 'query_invalid'>,
): z.output<T> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const subject = code === 'body_invalid' ? 'the body' : 'the query';
  throw new MeshError(code, `${subject} is not valid: ${describeFirst(result.error)}`, {
    fix: 'see docs/rest-api.md for the fields of this route',
  });
}

/** The first wrong field and what is wrong with it, for people: no value that was sent is in it. */
export function describeFirst({ issues: [issue] }: z.core.$ZodError): string {
  if (issue === undefined) return '';
  const where = issue.path.length === 0 ? '' : `${quote(issue.path.map(String).join('.'))}: `;
  return `${where}${messageOf(issue)}`;
}

function messageOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') return `unknown field ${issue.keys.map(quote).join(', ')}`;
  // Zod's own messages name types and bounds, never the value that was sent.
  return issue.message.charAt(0).toLowerCase() + issue.message.slice(1);
}
