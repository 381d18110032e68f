import fc from 'fast-check';
import type { AuditEvent } from '../../src/audit/event.ts';
import { oneOfEach } from './events.ts';

// Apart from the other events: fast-check takes a second to make its first text of any code points.
const hostileText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom('', '\ud800', '\u0001"\\\u2028', '__proto__', '😀'),
  fc
    .tuple(fc.constantFrom('a', '\u0001', '"', 'é', '€', '😀', '\udc00'), fc.integer({ min: 1, max: 70_000 }))
    .map(([unit, count]) => unit.repeat(count)),
);

const anyTime = fc.date({
  min: new Date('0000-01-01T00:00:00Z'),
  max: new Date('9999-12-31T23:59:59.999Z'),
  noInvalidDate: true,
});

/** Any event a stranger can bring about, with text of any length and kind in every field a stranger reaches. */
export const hostileEvents: fc.Arbitrary<AuditEvent> = fc
  .tuple(
    fc.constantFrom(...oneOfEach),
    anyTime,
    fc.array(hostileText, { minLength: 20, maxLength: 20 }),
    fc.array(hostileText, { maxLength: 300 }),
  )
  .map(([event, time, texts, selectors]) => {
    let next = 0;
    const text = () => texts[next++ % texts.length] ?? '';
    const members = Object.entries(event).map(([name, value]) => {
      if (name === 'type' || name === 'before') return [name, value];
      if (name === 'time') return [name, time];
      if (name === 'selectors' || name === 'audiences') return [name, selectors];
      if (name === 'path' || name === 'sourceAddress') return [name, { personal: text() }];
      if (name === 'after') return [name, { text: text(), list: [text(), 1, true, null] }];
      return [name, typeof value === 'string' ? text() : value];
    });
    return Object.fromEntries(members) as AuditEvent;
  });
