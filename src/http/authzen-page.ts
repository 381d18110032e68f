import { createHash } from 'node:crypto';
import { z } from 'zod';
import { maxPageSize } from '../audit/query.ts';
import { MeshError } from '../errors.ts';
import { defaultPageSize } from './page.ts';

/** What a search says of its page. A limit beyond what we answer with is no mistake: it is a most. */
export const pageWish = z.object({
  token: z.string().max(16_384).optional(),
  limit: z.number().int().min(0).optional(),
});

/** Where a page begins and how long it is. */
export type PagePlan = {
  /** The last that was looked at before; empty for the first page. */
  readonly after: string;
  /** 0 to 1,000. */
  readonly limit: number;
  /** What the token of a page has in it, so that nobody goes on with another question. */
  readonly question: string;
  /** What it costs to put the question once, in rules that are looked at: at least 1. */
  readonly weight: number;
};

/**
 * Reads which page of a search is wanted. A page that follows another need not say the limit again; everything else has to
 * be as it was.
 * @param question all that was asked, in whatever order of members
 * @throws MeshError `body_invalid` for a token that is none of ours, or of another question
 */
export function planPage(wish: z.output<typeof pageWish> | undefined, question: unknown): PagePlan {
  const text = JSON.stringify(question, sortMembers);
  const asked = {
    question: createHash('sha256').update(text).digest('base64url'),
    weight: Math.ceil(text.length / 100),
  };
  const { token, limit } = wish ?? {};
  const most = limit === undefined ? undefined : Math.min(limit, maxPageSize);
  // An empty one stands at the end of each listing: whoever sends it starts anew.
  if (token === undefined || token === '') {
    return { after: '', limit: most ?? defaultPageSize, ...asked };
  }
  const read = tokenShape.safeParse(parse(token));
  if (!read.success) throw invalid('the page token is not one of a page before');
  const [after, before, earlier] = read.data;
  if (earlier !== asked.question || (most !== undefined && most !== before)) {
    throw invalid('the page token is of another question');
  }
  return { after, limit: before, ...asked };
}

/** The token of the page after `last`. */
export function nextToken({ limit, question }: PagePlan, last: string): string {
  return Buffer.from(JSON.stringify([last, limit, question])).toString('base64url');
}

const tokenShape = z.tuple([z.string(), z.number().int().min(0).max(maxPageSize), z.string()]);

function parse(token: string): unknown {
  const bytes = Buffer.from(token, 'base64url');
  // Decoding passes over what it does not know.
  if (bytes.toString('base64url') !== token) return undefined;
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

function sortMembers(_name: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function invalid(message: string): MeshError {
  return new MeshError('body_invalid', message, {
    fix: 'pass next_token on unchanged with the same question, or leave page.token out',
  });
}
