mod clients;
mod settings;
