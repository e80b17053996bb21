#!/usr/bin/env node
// The command `packs` as npm installs it. The sources run as they are: by Node itself where it reads TypeScript (which it
// does not inside of node_modules), else through tsx.

if (!process.features.typescript || import.meta.url.includes('/node_modules/')) {
  const { register } = await import('tsx/esm/api')
  register({ tsconfig: false })
}
await import('./main.ts')
