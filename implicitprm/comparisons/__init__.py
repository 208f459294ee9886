"""What the implicit PRM is compared with, and what each costs; built on the same Trainer."""
