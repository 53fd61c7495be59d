import { mount } from 'svelte';
import './app.css';
import App from './App.svelte';
import SignInOverlay from './components/SignInOverlay.svelte';
import { i18n } from './lib/text/i18n.svelte';
import { access } from './lib/ui/access.svelte';

const page = document.getElementById('app');
const overlay = document.getElementById('sign-in');
if (!page || !overlay) throw new Error('index.html lacks #app or #sign-in');
i18n.start();
mount(SignInOverlay, { target: overlay, props: { page } });
void access.start().then(() => mount(App, { target: page }));
