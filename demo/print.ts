import { styleText } from 'node:util';

/** Lines for people: a title for each step, indented facts below it. */
export type Printer = {
  readonly title: (text: string) => void;
  readonly fact: (label: string, value: string) => void;
  readonly note: (text: string) => void;
  readonly failed: (why: string) => void;
};

export function createPrinter(): Printer {
  let count = 0;
  let current = 'the start';
  const write = (text: string) => process.stdout.write(`${text}\n`);
  return {
    title: (text) => {
      count += 1;
      current = `step ${count}, ${text}`;
      write(`\n${styleText('bold', `${count}. ${text}`)}`);
    },
    fact: (label, value) => {
      const [first = '', ...more] = value.trimEnd().split('\n');
      write(`   ${styleText('green', '√')} ${label.padEnd(26)} ${first}`);
      for (const line of more) write(`     ${' '.repeat(26)} ${line}`);
    },
    note: (text) => write(`\n${text}`),
    failed: (why) => write(`\n${styleText('red', '×')} ${current}: ${why}`),
  };
}

/** @throws Error when what is shown is not so */
export function expect(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected that ${what}`);
}
