// The join page: it joins as it loads.

import { App } from "./app";
import { View } from "./view";

const view = new View();
const app = new App(() => view.changed());
view.bind(app);
void app.start();
