import { characterBytes } from '../audit/canonical-json.ts';
import { documentBytes } from '../audit/fit.ts';
import type { PolicyTextEvent } from '../audit/policy-event.ts';

/** How the log is told the text of a policy: in the event of the change itself, or in parts before it. */
export type LoggedText = {
  readonly document: string;
  readonly documentParts?: number;
  readonly parts: readonly PolicyTextEvent[];
};

/**
 * Puts a text where the log has room for it, so that what changed can be told from the log alone.
 * @param source of the policy; empty when it was deleted
 */
export function logText(
  source: string,
  about: Omit<PolicyTextEvent, 'type' | 'part' | 'parts' | 'text'>,
): LoggedText {
  const texts = splitText(source.toWellFormed(), documentBytes);
  if (texts.length < 2) return { document: texts[0] ?? '', parts: [] };
  const parts = texts.map((text, at): PolicyTextEvent => ({
    type: 'policy_text',
    ...about,
    part: at + 1,
    parts: texts.length,
    text,
  }));
  return { document: '', documentParts: parts.length, parts };
}

/** Cuts a text between characters, each piece of at most `maxBytes` in a leaf. */
function splitText(text: string, maxBytes: number): readonly string[] {
  // One UTF-16 code unit takes at most six bytes.
  if (text.length * 6 <= maxBytes) return [text];
  const pieces: string[] = [];
  let [begin, bytes] = [0, 0];
  for (let at = 0; at < text.length;) {
    const code = text.codePointAt(at) ?? 0;
    const more = characterBytes(code);
    if (bytes + more > maxBytes) {
      pieces.push(text.slice(begin, at));
      [begin, bytes] = [at, 0];
    }
    bytes += more;
    at += code > 0xffff ? 2 : 1;
  }
  return begin < text.length ? [...pieces, text.slice(begin)] : pieces;
}
