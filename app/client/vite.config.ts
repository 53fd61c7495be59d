import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { svelte } from '@sveltejs/vite-plugin-svelte';
import type { Plugin } from 'vite';
import { defineConfig } from 'vitest/config';

const service = 'http://127.0.0.1:8000';

/** Text is compressed once, here: the service sends `name.gz` to those who take it. */
function compressed(): Plugin {
  return {
    name: 'compressed',
    apply: 'build',
    writeBundle({ dir }) {
      const assets = join(dir ?? '', 'assets');
      for (const name of readdirSync(assets).filter((name) => /\.(js|css)$/.test(name))) {
        const file = join(assets, name);
        writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  // Relative addresses, so that the page also works behind a proxy under a path prefix.
  base: './',
  plugins: [svelte({ configFile: false }), compressed()],
  build: {
    outDir: '../web/static/dist',
    emptyOutDir: true,
    sourcemap: false,
    target: 'es2022',
    // The Content-Security-Policy allows no data: addresses.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  // `npm run dev` beside a running service.
  server: { proxy: { '/api': service, '/v1': service } },
  test: { environment: 'node', include: ['src/**/*.test.ts'] },
});
