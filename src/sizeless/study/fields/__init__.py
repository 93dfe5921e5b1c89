"""What a network can see of its input, and what it does look at."""

from sizeless.study.fields.effective import EffectiveField, effective_receptive_field
from sizeless.study.fields.receptive import ReceptiveFields, receptive_fields

__all__ = ["EffectiveField", "ReceptiveFields", "effective_receptive_field", "receptive_fields"]
