/**
 * A line of a header without its outer spaces and tabs (OWS of RFC 9110 section 5.6.3). Time is linear: the line is the
 * caller's, and a regular expression for its end would try every space within.
 */
export function trimSpaces(line: string): string {
  let [start, end] = [0, line.length];
  // Beyond its ends a line has no space, so one of nothing but spaces ends before it starts, which is an empty one too.
  while (isSpace(line.charCodeAt(start))) start += 1;
  while (isSpace(line.charCodeAt(end - 1))) end -= 1;
  return line.slice(start, end);
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
