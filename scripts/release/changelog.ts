import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Fragment {
  readonly file: string;
  readonly section: string;
  readonly text: string;
}

/** Reads `changes/*.md`. Throws when one does not begin with its section. */
export function readFragments(folder: string): readonly Fragment[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.md') && name !== 'README.md')
    .sort()
    .map((name) => {
      const content = readFileSync(join(folder, name), 'utf8');
      const [, section, text] = /^### ([^\n]+)\n+(.+)$/s.exec(content) ?? [];
      if (section === undefined || text === undefined)
        throw new Error(
          `changes/${name}: found ${JSON.stringify(content.slice(0, 40))}; allowed: "### Section", then its text`,
        );
      return { file: name, section, text: text.trim() };
    });
}

/** The changelog with a new release on top. Sections keep the order in which they first come. */
export function withRelease(
  changelog: string,
  version: string,
  date: string,
  fragments: readonly Fragment[],
): string {
  const sections = Map.groupBy(fragments, ({ section }) => section);
  const body = [...sections].map(
    ([section, parts]) => `### ${section}\n\n${parts.map(({ text }) => text).join('\n')}\n`,
  );
  const [title, ...rest] = changelog.split(/^(?=## )/m);
  return [title, `## ${version} (${date})\n\n${body.join('\n')}\n`, ...rest].join('');
}
