import { mount } from 'svelte';
import './app.css';
import App from './App.svelte';
import Door from './components/Door.svelte';
import { access } from './lib/access.svelte';
import { i18n } from './lib/i18n.svelte';

const page = document.getElementById('app');
const door = document.getElementById('door');
if (!page || !door) throw new Error('index.html lacks #app or #door');
i18n.start();
mount(Door, { target: door, props: { page } });
void access.start().then(() => mount(App, { target: page }));
