import type { PackType } from '../packs/pack.ts'

/** Files of a starter folder by their paths. */
export type Starter = Record<string, string>

const described: Record<PackType, { description: string; start: string }> = {
  policy: { description: 'rules that are checked', start: 'Write your rules in `policies/`.' },
  analyzer: {
    description: 'an analyzer for a scanner',
    start: 'Describe in `analyzer.json` what it runs and what it reads.',
  },
  task: { description: 'steps for a task runner', start: 'Write the steps in `task.json`.' },
  bundle: {
    description: 'packs that belong together',
    start:
      'Name the packs in `dependencies` of `pack.json`. A bundle without files of its own is published as an index of\n' +
      'all packs it needs, so that any OCI client moves them with one command.',
  },
}

/** A folder to begin a pack of this type with: it is valid as it is, and can be published. */
export function starterOf(type: PackType, packId: string): Starter {
  const { description, start } = described[type]
  const document = {
    packId,
    version: '0.1.0',
    type,
    name: packId
      .split(/[._-]/)
      .map((word) => word.charAt(0).toUpperCase() + word.slice(1))
      .join(' '),
    description: `${packId}: ${description}`,
    dependencies: [],
    metadata: { license: 'Apache-2.0', keywords: [type] },
  }
  const packJson = { 'pack.json': json(document) }
  // A bundle has nothing beside its document, or it would be a pack with content.
  if (type === 'bundle') return { ...packJson, '.packignore': 'README.md\n', 'README.md': readme(packId, start) }
  return { ...packJson, ...contents[type](packId), '.packignore': ignored, 'README.md': readme(packId, start) }
}

const ignored =
  '# What does not belong into the pack, in the notation of .gitignore.\n.DS_Store\n*.tmp\nnode_modules/\ntests/\n'

function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`
}

function readme(packId: string, start: string): string {
  return `# ${packId}

${start}

    packs validate
    packs publish --dry-run
    packs publish

A published version never changes: raise \`version\` in \`pack.json\` before the next one.
`
}

const contents: Record<Exclude<PackType, 'bundle'>, (packId: string) => Starter> = {
  policy: (packId) => ({
    'policies/images.rego': `package ${packId.replaceAll(/[.-]/g, '_').replace(/^(?=\d)/, '_')}.images

import rego.v1

# An image that is named by a tag may change under its name.
deny contains message if {
  some image in input.images
  not contains(image, "@sha256:")
  message := sprintf("%s is not named by its digest", [image])
}
`,
    'tests/images.json': json({ input: { images: ['example.org/app:latest'] }, denied: 1 }),
  }),
  analyzer: (packId) => ({
    'analyzer.json': json({
      analyzer: packId,
      reads: ['**/package-lock.json'],
      reports: 'application/vnd.cyclonedx+json',
      run: ['bin/analyze'],
    }),
    'bin/analyze':
      '#!/bin/sh\n# Reads the files it is named and writes its report to stdout.\necho \'{"bomFormat":"CycloneDX","specVersion":"1.6","components":[]}\'\n',
  }),
  task: (packId) => ({
    'task.json': json({
      task: packId,
      inputs: { target: { type: 'string', description: 'what the task is about' } },
      steps: [{ name: 'greet', run: ['sh', 'steps/greet.sh', '{{inputs.target}}'] }],
    }),
    'steps/greet.sh': '#!/bin/sh\nset -eu\necho "hello, $1"\n',
  }),
}

/** Files of a starter that may be executed. */
export function isExecutable(path: string): boolean {
  return path.startsWith('bin/') || path.endsWith('.sh')
}
