import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ROOMS = ['src', 'test', 'scripts', 'proto', 'bench', 'docs', 'clients'];

/** One mention may name several anchors: the first, then `, #b and #c`. */
const MENTION = /\bupstream\.md((?:#[\w-]+)(?:(?:, | and )#[\w-]+)*)/g;

const text = readFileSync(`${ROOT}docs/upstream.md`, 'utf8');
const anchors = new Set(
  [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  ),
);

test('every mention of docs/upstream.md names one of its headings', () => {
  const mentions = sources().flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(MENTION)].flatMap(([, all = '']) =>
      all.split(/, | and /).map((anchor) => ({ file: file.slice(ROOT.length), anchor: anchor.slice(1) })),
    ),
  );
  expect(mentions.length).toBeGreaterThan(40);
  expect(mentions.filter(({ anchor }) => !anchors.has(anchor))).toEqual([]);
});

test('its own links go to its headings', () => {
  const links = [...text.matchAll(/\]\(#([\w-]+)\)/g)].map(([, anchor = '']) => anchor);
  expect(links.filter((anchor) => !anchors.has(anchor))).toEqual([]);
});

test('no comment points to a file of facts that is not here', () => {
  const gone = new RegExp(['protocol', '(-update)?', '\\.md'].join(''));
  expect(sources().filter((file) => gone.test(readFileSync(file, 'utf8')))).toEqual([]);
});

function sources(): string[] {
  return ROOMS.flatMap((room) =>
    readdirSync(`${ROOT}${room}`, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && /\.(ts|md|proto|ya?ml)$/.test(entry.name))
      .map((entry) => `${entry.parentPath}/${entry.name}`)
      .filter((file) => !/node_modules|\/dist\/|\/target\//.test(file)),
  );
}
